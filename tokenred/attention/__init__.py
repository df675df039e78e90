"""The attention-statistics contract: what parts may ask (`Need`), and the engines that answer."""

from tokenred.attention.edits import SLACK, AttentionEdit, attention_edits, size_bias, sparsify
from tokenred.attention.engine import (
    PLAIN,
    FusedEngine,
    PlainEngine,
    attend,
    pick_engine,
)
from tokenred.attention.kernels import TritonEngine
from tokenred.attention.need import Need
from tokenred.attention.recompute import Recomputed
from tokenred.attention.request import Engine, Heads, Request
from tokenred.attention.scratch import Scratch
from tokenred.attention.stats import AttentionStats, mean_keys
from tokenred.attention.tiles import TiledEngine
from tokenred.attention.two_calls import TwoCallsEngine

__all__ = [
    "PLAIN",
    "SLACK",
    "AttentionEdit",
    "AttentionStats",
    "Engine",
    "FusedEngine",
    "Heads",
    "Need",
    "PlainEngine",
    "Recomputed",
    "Request",
    "Scratch",
    "TiledEngine",
    "TritonEngine",
    "TwoCallsEngine",
    "attend",
    "attention_edits",
    "mean_keys",
    "pick_engine",
    "size_bias",
    "sparsify",
]
