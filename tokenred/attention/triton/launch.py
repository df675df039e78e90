# mypy: ignore-errors
"""Launching the kernels: operands, strides, tiles and grid."""

from __future__ import annotations

import os
from contextlib import nullcontext

import torch

from tokenred.attention.triton.blocks import blocks_for, padded
from tokenred.attention.triton.tiles import LOG2E

__all__ = ["Launch"]

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


class Launch:
    """The operands of one block's attention, ready for any of the kernels.

    Attributes:
        q, k, v: ``(b, h, N, d)``, each row contiguous.
        operands: those and the bias.
        strides: of image, head and row, of each of the three.
        by_rows, by_cols, by_maps: number of programs with one per tile of queries, tile of keys, or
            image and head.
    """

    def __init__(self, q, k, v, bias, scale):
        self.q, self.k, self.v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        self.bias, self.scale = None if bias is None else bias.contiguous(), scale
        b, self.heads, self.n, self.width = q.shape
        self.blocks = blocks_for(self.width, q.dtype)
        # A pointer is required even if no kernel reads it.
        self.operands = (self.q, self.k, self.v, self.q if bias is None else self.bias)
        self.strides = tuple(s for x in (self.q, self.k, self.v) for s in x.stride()[:3])
        self.by_maps = b * self.heads
        self.by_rows = self.by_maps * -(-self.n // self.blocks.rows)
        self.by_cols = self.by_maps * -(-self.n // self.blocks.cols)

    def __call__(self, kernel, programs, tensors, strides, numbers=(), **constants):
        """Launch a kernel: tensors, strides, heads, tokens, scale, then further numbers."""
        blocks, device = self.blocks, self.q.device
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            kernel[(programs,)](
                *tensors, *strides, self.heads, self.n, self.scale * LOG2E.value, *numbers,
                WIDTH=self.width, PADDED=padded(self.width), ROWS=blocks.rows, COLS=blocks.cols,
                HAS_BIAS=self.bias is not None, UPCAST=_INTERPRETED, **constants,
                num_warps=blocks.warps, num_stages=blocks.stages, enable_fp_fusion=True,
            )  # fmt: skip
