# mypy: ignore-errors
"""Launching the kernels: tile sizes, operands, strides and grid."""

import os
from contextlib import nullcontext
from typing import NamedTuple

import torch

__all__ = [
    "INTERPRETED",
    "MOST_KEYS",
    "WIDEST",
    "Blocks",
    "Launch",
    "blocks_for",
    "major_of",
    "on",
    "one_pass_blocks",
    "padded",
    "statistics_blocks",
]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


class Blocks(NamedTuple):
    """A tile of the map (queries and keys), and the launch settings for it."""

    rows: int
    cols: int
    warps: int
    stages: int


# By the padded width of a head, up to: (16-bit types, float32). Compiled for compute capability 8.0
# and 9.0, they take less than 100 KiB of shared memory, and the 16-bit ones spill no registers. How
# fast they are is not measured yet.
_TABLE: dict[int, tuple[Blocks, Blocks]] = {
    64: (Blocks(64, 64, 4, 3), Blocks(64, 32, 4, 2)),
    128: (Blocks(128, 64, 8, 2), Blocks(32, 32, 4, 2)),
    256: (Blocks(64, 32, 4, 2), Blocks(16, 16, 4, 2)),
}
WIDEST = max(_TABLE)
"""The widest supported head."""
MOST_KEYS = 256
"""The most keys of which a tile can have all."""


def on(device):
    """Within, kernels are launched on this device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def padded(width: int) -> int:
    """The width of a head in a tile: a power of two, at least 16."""
    return max(16, 1 << (width - 1).bit_length())


def blocks_for(width: int, dtype: torch.dtype, major: int) -> Blocks:
    """The tile for heads of a width (up to `WIDEST`) and type, for a major compute capability.

    On 10.0 wide ones would take more than 99 KiB of shared memory.
    """
    half, full = _TABLE[min(w for w in _TABLE if w >= padded(width))]
    if dtype == torch.float32:
        return full
    return half._replace(rows=64, warps=4) if major == 10 else half


def statistics_blocks(width: int, dtype: torch.dtype, major: int) -> Blocks:
    """The same tile for the statistics.

    On 10.0 four warps would spill registers.
    """
    blocks = blocks_for(width, dtype, major)
    return blocks._replace(warps=8) if major == 10 and dtype != torch.float32 else blocks


def major_of(device: torch.device) -> int:
    """The major compute capability of a GPU; elsewhere, under the interpreter, 9."""
    return torch.cuda.get_device_properties(device).major if device.type == "cuda" else 9


def one_pass_blocks(n: int, major: int) -> Blocks:
    """A tile with all of up to `MOST_KEYS` keys, for GPUs of a major compute capability.

    Only 9.0 and 10.0 leave a product's operands in shared memory; elsewhere they take registers,
    and fewer queries fit. On 9.0 each four warps compute 64 rows.
    """
    cols = padded(n)
    warps = 8 if cols == MOST_KEYS else 4
    rows = {9: 16 * warps, 10: 64}.get(major, 32)
    return Blocks(min(rows, cols), cols, warps, 1)


class Launch:
    """The operands of one block's attention, ready for any of the kernels.

    Attributes:
        q, k, v: ``(b, h, N, d)``, each row contiguous.
        operands: those and the bias.
        strides: of image, head and row, of each of the three.
        blocks: the tile, by default that of the width and type.
        by_rows, by_cols, by_maps: number of programs with one per tile of queries, tile of keys, or
            image and head.
    """

    def __init__(self, q, k, v, bias, scale, blocks=None):
        self.q, self.k, self.v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        self.bias, self.scale = None if bias is None else bias.contiguous(), scale
        b, self.heads, self.n, self.width = q.shape
        self.blocks = blocks or blocks_for(self.width, q.dtype, major_of(q.device))
        # A pointer is required even if no kernel reads it.
        self.operands = (self.q, self.k, self.v, self.q if bias is None else self.bias)
        self.strides = tuple(s for x in (self.q, self.k, self.v) for s in x.stride()[:3])
        self.by_maps = b * self.heads
        self.by_rows = self.by_maps * -(-self.n // self.blocks.rows)
        self.by_cols = self.by_maps * -(-self.n // self.blocks.cols)

    def __call__(self, kernel, programs, tensors, strides, numbers=(), **constants):
        """Launch a kernel: tensors, strides, heads, tokens, scale, then further numbers."""
        from tokenred.attention.triton.tiles import LOG2E  # Triton may be missing

        blocks = self.blocks
        with on(self.q.device):
            kernel[(programs,)](
                *tensors, *strides, self.heads, self.n, self.scale * LOG2E.value, *numbers,
                WIDTH=self.width, PADDED=padded(self.width), ROWS=blocks.rows, COLS=blocks.cols,
                HAS_BIAS=self.bias is not None, UPCAST=INTERPRETED, **constants,
                num_warps=blocks.warps, num_stages=blocks.stages, enable_fp_fusion=True,
            )  # fmt: skip
