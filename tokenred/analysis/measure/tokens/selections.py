"""What a trace says about the patches that a method keeps, and how two such records compare.

Records are arrays ``(b, L, N0)``: images, blocks, patches.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenred.reduced.trace import Trace

__all__ = ["alive", "chance_iou", "iou", "scores", "spearman", "survival"]

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]


def alive(trace: Trace) -> Flags:
    """Whether a token of each position is alive after each block.

    A token that stands for no single patch (−1) keeps none alive.
    """
    kept = [
        _on_grid(index, torch.ones_like(index, dtype=torch.float64), trace.num_patches, 0.0)
        for index in trace.index_per_layer
    ]
    return np.stack(kept, axis=1) > 0


def survival(kept: Flags) -> Floats:
    """In how many blocks each patch has stayed, up to each block."""
    return kept.cumsum(axis=1).astype(np.float64)


def scores(trace: Trace) -> Floats:
    """The scores that decided in each block; NaN for patches and blocks without one."""
    shape = (trace.index.shape[0], len(trace.index_per_layer), trace.num_patches)
    out = np.full(shape, np.nan)
    for step in trace.steps:
        if step.selection.score is not None:
            before = trace.index_per_layer[step.layer - 1] if step.layer else trace.start_index
            values = step.selection.score.detach().double()
            out[:, step.layer] = _on_grid(before, values, trace.num_patches, torch.nan)
    return out


def iou(a: Flags, b: Flags) -> Floats:
    """Intersection over union along the last axis, 0 … 1; NaN where both are empty."""
    both, either = (a & b).sum(axis=-1), (a | b).sum(axis=-1)
    return _ratio(both, either)


def chance_iou(a: Flags, b: Flags) -> Floats:
    """What `iou` is on average for two random choices of as many as ``a`` and ``b`` hold."""
    counts = np.stack((a.sum(axis=-1), b.sum(axis=-1)), axis=-1)
    flat = [_chance(int(x), int(y), a.shape[-1]) for x, y in counts.reshape(-1, 2)]
    return np.array(flat).reshape(counts.shape[:-1])


def spearman(x: Floats, y: Floats) -> Floats:
    """Spearman's rank correlation along the last axis, −1 … 1; ties share their mean rank.

    Entries that are NaN in either are left out. NaN where one of the two is constant.
    """
    from scipy.stats import rankdata

    known = ~(np.isnan(x) | np.isnan(y))
    # What is left out ranks behind all others, and so changes no other rank.
    ranks = [np.where(known, rankdata(np.where(known, v, np.inf), axis=-1), 0) for v in (x, y)]
    count = known.sum(axis=-1, keepdims=True).clip(1)
    first, second = (
        np.where(known, rank - rank.sum(axis=-1, keepdims=True) / count, 0) for rank in ranks
    )
    scale = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    products = (first * second).sum(axis=-1)
    return _ratio(products, scale)


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> Floats:
    """NaN where there is nothing to divide by."""
    out: Floats = np.full(above.shape, np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def _on_grid(index: Tensor, values: Tensor, patches: int, empty: float) -> Floats:
    """``(b, n)`` values at their positions, ``(b, N0)``."""
    # A spare place takes what has no position.
    out = torch.full((index.shape[0], patches + 1), empty, dtype=values.dtype, device=index.device)
    placed = out.scatter(1, torch.where(index >= 0, index, patches), values)
    grid: Floats = placed[:, :patches].cpu().numpy()
    return grid


@lru_cache(maxsize=4096)
def _chance(a: int, b: int, patches: int) -> float:
    """The mean of the intersection over union, which follows a hypergeometric distribution."""
    from scipy.stats import hypergeom

    if not a + b:
        return float("nan")
    common = np.arange(max(0, a + b - patches), min(a, b) + 1)
    return float((hypergeom.pmf(common, patches, a, b) * common / (a + b - common)).sum())
