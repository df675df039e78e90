"""What a method is made of: scorers, selectors, fusers, routes and schedules.

The published methods stand in `tokenred.strategies.recipes`, one file each.
"""

from tokenred.strategies.base import Embedding, Fuser, Route, Scorer, Selector
from tokenred.strategies.fusers import FusedToken, Merge, Propagate, Prune
from tokenred.strategies.routes import Idle, TakeAll
from tokenred.strategies.schedules import (
    Budget,
    Constant,
    KeepRatio,
    Linear,
    PerLayer,
    Schedule,
)
from tokenred.strategies.scorers import (
    BroadAttn,
    CLSAttn,
    CosSim,
    DiagAttn,
    MixedAttn,
    Random,
)
from tokenred.strategies.selectors import BipartiteMatching, GridDrop, TopScore

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
    "KeepRatio",
    "Linear",
    "Merge",
    "MixedAttn",
    "PerLayer",
    "Propagate",
    "Prune",
    "Random",
    "Route",
    "Schedule",
    "Scorer",
    "Selector",
    "TakeAll",
    "TopScore",
]
