"""θ for many maps at once: all threads count, each in the part of the maps that it made.

A cut in each map says how many entries reach it. A strided sample gives the first two; between two
that enclose the threshold the entries lie almost evenly, so that the next cut is off by the root of
their number, and a handful of counts finds one that keeps exactly as many as asked. What a few maps
still lack then, ties among it, is put in order.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["mark_largest", "stride_of"]

# Entries sampled; a cut aims beyond by so many standard deviations of its place; so many cuts come
# from the sample at most.
_SAMPLE, _BEYOND, _SAMPLED = 400, 1.5, 3
# Counts of all maps at most, and how many before one looks for maps that do not get on. To put one
# map in order costs as much as to count so many.
_COUNTS, _SETTLED, _WORTH = 12, 6, 5


def mark_largest(
    maps: Float[Tensor, "m entries"], k: int, mark: Float[Tensor, "m entries"], slack: int = 0
) -> NDArray[np.integer]:
    """Write 1 where an entry is among the k largest of its map, and 0 elsewhere.

    Args:
        maps: on the CPU, contiguous; each entry between 0 and 1, fewer than 2²⁴ in a map.
        k: 1 ≤ k ≤ entries. Of equal entries the first ones are taken.
        mark: where to write.
        slack: so many entries more or less will do, if they are all that reach some cut. A map's
            result is then its own: the other maps change nothing in it.

    Returns:
        How many entries of each map are marked, ``(m,)``; k where fewer than k are above zero or
        some are not a number, and all are marked.
    """
    count, size = maps.shape
    entries = maps.numpy()
    sample = np.sort(entries[:, :: stride_of(size, _SAMPLE)], axis=1)
    each, last = np.arange(count), sample.shape[1] - 1
    first = (last + 1) * (1 - k / size)
    place, cuts = np.full(count, first), sample[:, min(int(first), last)].copy()
    # Whether a map is left to be put in order depends on the others: not where results may differ.
    enough = 0 if slack else count // _WORTH
    # The best cuts at or below each threshold and above it, and how many entries reach them.
    low, high = np.zeros_like(cuts), np.full_like(cuts, 2)
    many, few = np.full_like(cuts, size), np.zeros_like(cuts)
    for turn in range(_COUNTS):
        reached = _count(maps, cuts, mark)
        off = reached - k
        under = off >= 0
        np.copyto(low, cuts, where=under)
        np.copyto(many, reached, where=under)
        np.logical_not(under, out=under)
        np.copyto(high, cuts, where=under)
        np.copyto(few, reached, where=under)
        left = np.abs(off) > slack
        if np.count_nonzero(left) <= enough:
            break
        aim = low + (high - low) * ((many - k) / (many - few))
        if turn < _SAMPLED and (turn == 0 or not (low.all() and high.max() < 2)):
            steps = off * ((last + 1) / size)
            place += steps + np.copysign(_BEYOND * np.sqrt(np.abs(steps)) + 1, steps)
            sampled = sample[each, np.minimum(np.maximum(place, 0), last).astype(np.intp)]
            aim = np.where((low == 0) | (high == 2), sampled, aim)
        elif turn >= _SETTLED and not (left & (aim > low) & (aim < high)).any():
            break  # equal entries: no cut lies between them
        # Where the threshold is met, the cut stays where it is.
        cuts = np.where(left, aim, cuts)
    marks = mark.numpy()
    for at in np.flatnonzero(left):
        _put_in_order(entries[at], marks[at], k - int(few[at]), low[at], high[at])
        reached[at] = k
    return reached.astype(np.int64)


def _put_in_order(
    entries: NDArray[np.floating],
    mark: NDArray[np.floating],
    rank: int,
    low: np.floating,
    high: np.floating,
) -> None:
    """Between two cuts, one of which the map is marked by, mark the ``rank`` largest alone."""
    places = np.flatnonzero((entries >= low) ^ (entries >= high))
    between = entries[places]
    if np.count_nonzero(between) < rank:  # the rest is zero, or not a number
        mark[:] = 1
        return
    mark[places] = 0
    mark[places[np.argsort(-between, kind="stable")[:rank]]] = 1


def _count(
    maps: Float[Tensor, "m entries"],
    cuts: NDArray[np.floating],
    mark: Float[Tensor, "m entries"],
) -> NDArray[np.floating]:
    """How many entries reach each map's cut; they are marked."""
    # As numbers, since PyTorch writes booleans slowly.
    torch.ge(maps, torch.from_numpy(cuts[:, None]), out=mark)
    reached: NDArray[np.floating] = mark.sum(dim=1).numpy()
    return reached


def stride_of(size: int, sample: int) -> int:
    """Steps through so many entries that see every column of a map."""
    stride = max(1, size // sample)
    while math.gcd(stride, size) > 1:
        stride += 1
    return stride
