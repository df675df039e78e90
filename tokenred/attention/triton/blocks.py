"""The tile sizes of the kernels: a fixed table, without tuning at run time."""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["Blocks", "blocks_for", "padded"]


class Blocks(NamedTuple):
    """A tile of the map, and the launch settings for it.

    Attributes:
        rows: queries of a tile.
        cols: keys of a tile.
        warps: number of warps per tile.
        stages: number of tiles prefetched at a time.
    """

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


def padded(width: int) -> int:
    """The width of a head in a tile: a power of two, at least 16."""
    return max(16, 1 << (width - 1).bit_length())


def blocks_for(width: int, dtype: torch.dtype) -> Blocks:
    """The tile for heads of a width (up to `WIDEST`) and type."""
    half, full = _TABLE[min(w for w in _TABLE if w >= padded(width))]
    return full if dtype == torch.float32 else half
