"""Fusers: what becomes of the tokens that go."""

from tokenred.strategies.fusers.fused_token import FusedToken
from tokenred.strategies.fusers.merge import Merge
from tokenred.strategies.fusers.propagate import Propagate
from tokenred.strategies.fusers.prune import Prune

__all__ = ["FusedToken", "Merge", "Propagate", "Prune"]
