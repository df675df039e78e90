"""Operators that tokenred's parts use and PyTorch's exporter does not translate."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

__all__ = ["translations"]

_END = torch.iinfo(torch.int64).max


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """ONNX functions by PyTorch operator.

    Both are ONNX's TopK, whose equal entries come in the order of their places: over all entries it
    is a stable sort.
    """
    op: Any = import_module("onnxscript").opset18

    # The names of the arguments are PyTorch's, and their types tell which are no tensors.
    def sort_stable(
        self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False
    ) -> Any:
        entries = op.Gather(op.Shape(self), [dim])
        return op.TopK(self, entries, axis=dim, largest=int(descending), sorted=1)

    def kthvalue(self: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
        values, places = op.TopK(self, [k], axis=dim, largest=0, sorted=1)
        last = [op.Slice(found, [k - 1], [_END], [dim]) for found in (values, places)]
        return tuple(last if keepdim else (op.Squeeze(found, [dim]) for found in last))

    return {
        torch.ops.aten.sort.stable: sort_stable,
        torch.ops.aten.kthvalue.default: kthvalue,
    }
