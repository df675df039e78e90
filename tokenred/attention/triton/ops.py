# mypy: ignore-errors
"""The kernels as operators of PyTorch: ``torch.compile`` takes each as it is."""

from __future__ import annotations

from tokenred.attention.triton.forward import forward
from tokenred.attention.triton.sparse import sparse_forward
from tokenred.attention.triton.statistics import statistics
from tokenred.attention.triton.threshold import threshold

__all__ = ["forward", "sparse_forward", "statistics", "threshold"]
