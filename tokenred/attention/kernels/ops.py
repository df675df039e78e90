# mypy: ignore-errors
"""The kernels as operators of PyTorch: ``torch.compile`` takes each as it is."""

from __future__ import annotations

from tokenred.attention.kernels.forward import forward
from tokenred.attention.kernels.sparse import sparse_forward
from tokenred.attention.kernels.statistics import statistics
from tokenred.attention.kernels.threshold import threshold

__all__ = ["forward", "sparse_forward", "statistics", "threshold"]
