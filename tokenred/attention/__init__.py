"""Attention statistics for parts (`AttentionStat`), and the engines that compute them."""

from tokenred.attention.engine import FusedEngine, attend, pick_engine
from tokenred.attention.plain import PLAIN, PlainEngine
from tokenred.attention.recompute import Recomputed
from tokenred.attention.score_mods import SLACK, ScoreMod, score_mods, size_bias, sparsify
from tokenred.attention.spec import QKV, AttentionSpec, Engine, Scratch
from tokenred.attention.stats import AttentionStat, AttentionStats, mean_keys
from tokenred.attention.tiled.engine import TiledEngine
from tokenred.attention.triton import OnePassEngine, TritonEngine, reduces
from tokenred.attention.two_calls import TwoCallsEngine

__all__ = [
    "PLAIN", "QKV", "SLACK", "AttentionSpec", "AttentionStat", "AttentionStats", "Engine",
    "FusedEngine", "OnePassEngine", "PlainEngine", "Recomputed", "ScoreMod", "Scratch",
    "TiledEngine", "TritonEngine", "TwoCallsEngine", "attend", "mean_keys", "pick_engine",
    "reduces", "score_mods", "size_bias", "sparsify",
]  # fmt: skip
