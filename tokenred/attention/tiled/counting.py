"""θ for many maps at once: every thread counts in the part of the maps that it wrote.

For a cut in each map, the entries that reach it are counted. A strided sample gives the first two
cuts. Between two cuts that enclose the threshold the entries are distributed almost evenly, so the
error of the next cut is about the square root of their number, and a handful of counts finds one
that keeps exactly the requested number. In the few maps that remain, including those with ties, the
entries between the cuts are sorted.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

# Entries sampled; by how many standard deviations a cut overshoots; the maximum number of cuts
# from the sample.
_SAMPLE, _BEYOND, _SAMPLED = 400, 1.5, 3
# Maximum number of counts of all maps, and after how many to look for maps that do not converge.
# Sorting one map costs as much as this many counts.
_COUNTS, _SETTLED, _WORTH = 12, 6, 5


def mark_largest(
    maps: Float[Tensor, "m entries"], k: int, mark: Float[Tensor, "m entries"], slack: int = 0
) -> NDArray[np.integer]:
    """Write 1 where an entry is among the k largest of its map, and 0 elsewhere.

    Args:
        maps: on the CPU, contiguous; entries between 0 and 1, fewer than 2²⁴ per map.
        k: 1 ≤ k ≤ entries. Ties go to the first entries.
        mark: where to write.
        slack: number of entries by which the count may differ, if some cut is reached by exactly
            that many. The result of a map does not depend on the other maps.

    Returns:
        The number of marked entries per map, ``(m,)``; k if fewer than k are positive or some are
        NaN, and all are marked.
    """
    count, size = maps.shape
    entries = maps.numpy()
    sample = np.sort(entries[:, :: stride_of(size, _SAMPLE)], axis=1)
    each, last = np.arange(count), sample.shape[1] - 1
    first = (last + 1) * (1 - k / size)
    place, cuts = np.full(count, first), sample[:, min(int(first), last)].copy()
    # Whether a map is sorted depends on the other maps: not allowed if results may differ.
    enough = 0 if slack else count // _WORTH
    # The best cuts at or below and above each threshold, and how many entries reach them.
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
        # Once the threshold is met, the cut does not move.
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
    """Between two cuts, to one of which the map is marked, mark only the ``rank`` largest."""
    places = np.flatnonzero((entries >= low) ^ (entries >= high))
    between = entries[places]
    if np.count_nonzero(between) < rank:  # the rest is zero or NaN
        mark[:] = 1
        return
    mark[places] = 0
    mark[places[np.argsort(-between, kind="stable")[:rank]]] = 1


def _count(
    maps: Float[Tensor, "m entries"], cuts: NDArray[np.floating], mark: Float[Tensor, "m entries"]
) -> NDArray[np.floating]:
    """Mark and count the entries that reach each map's cut."""
    # As floats, since PyTorch writes booleans slowly.
    torch.ge(maps, torch.from_numpy(cuts[:, None]), out=mark)
    reached: NDArray[np.floating] = mark.sum(dim=1).numpy()
    return reached


def stride_of(size: int, sample: int) -> int:
    """Strides through the entries that visit every column of a map."""
    stride = max(1, size // sample)
    while math.gcd(stride, size) > 1:
        stride += 1
    return stride
