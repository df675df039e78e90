"""Attention with statistics in Triton kernels. Importing this imports no Triton."""

from tokenred.attention.triton.engine import OnePassEngine, TritonEngine, reduces

__all__ = ["OnePassEngine", "TritonEngine", "reduces"]
