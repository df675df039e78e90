"""Scorers: which image tokens matter."""

from tokenred.strategies.scorers.broad_attn import BroadAttn
from tokenred.strategies.scorers.cls_attn import CLSAttn
from tokenred.strategies.scorers.cos_sim import CosSim
from tokenred.strategies.scorers.diag_attn import DiagAttn
from tokenred.strategies.scorers.mixed_attn import MixedAttn
from tokenred.strategies.scorers.random import Random

__all__ = ["BroadAttn", "CLSAttn", "CosSim", "DiagAttn", "MixedAttn", "Random"]
