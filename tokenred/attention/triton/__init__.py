"""Attention with statistics in Triton kernels. Importing this imports no Triton."""

from tokenred.attention.triton.engine import TritonEngine

__all__ = ["TritonEngine"]
