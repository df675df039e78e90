"""What a method is made of: scorers, selectors, fusers, routers, score mods, embeddings, schedules.

The published methods stand in `tokenred.strategies.recipes`, one file each.
"""

from tokenred.strategies.base import Embedding, Fuser, Router, Scorer, Selector
from tokenred.strategies.embeddings import MultiScale, Plain
from tokenred.strategies.fusers import FusedToken, Merge, Propagate, Prune
from tokenred.strategies.routers import Idle, SlowFast, TakeAll
from tokenred.strategies.schedules import (
    Budget,
    Constant,
    KeepRatio,
    Linear,
    PerLayer,
    Schedule,
)
from tokenred.strategies.score_mods import PolicyMask, TopKeys
from tokenred.strategies.scorers import (
    BroadAttn,
    CLSAttn,
    CosSim,
    DiagAttn,
    MixedAttn,
    Random,
)
from tokenred.strategies.selectors import (
    BipartiteMatching,
    GridDrop,
    InverseTransform,
    Partnered,
    Predictor,
    TopScore,
)

__all__ = [
    "BipartiteMatching",
    "BroadAttn",
    "Budget",
    "CLSAttn",
    "Constant",
    "CosSim",
    "DiagAttn",
    "Embedding",
    "FusedToken",
    "Fuser",
    "GridDrop",
    "Idle",
    "InverseTransform",
    "KeepRatio",
    "Linear",
    "Merge",
    "MixedAttn",
    "MultiScale",
    "Partnered",
    "PerLayer",
    "Plain",
    "PolicyMask",
    "Predictor",
    "Propagate",
    "Prune",
    "Random",
    "Router",
    "Schedule",
    "Scorer",
    "Selector",
    "SlowFast",
    "TakeAll",
    "TopKeys",
    "TopScore",
]
