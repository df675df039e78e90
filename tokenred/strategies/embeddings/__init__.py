"""Embeddings: what a method adds to the tokens before the first block."""

from tokenred.strategies.embeddings.multi_scale import MultiScale
from tokenred.strategies.embeddings.plain import Plain

__all__ = ["MultiScale", "Plain"]
