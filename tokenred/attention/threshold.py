"""The threshold that θ means: the k-th largest entry of a map, found without sorting it.

A strided sample brackets the threshold. Counting narrows the bracket: each count cuts it where the
threshold should lie if the entries inside were spread evenly, a little to the far side, so that the
short piece remains. The few entries left are looked at in order. NumPy counts several times faster
than PyTorch does on the CPU. The result is exact: where the sample misleads, all is searched.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from tokenred.attention.edits import kept_entries, sparsify

__all__ = ["kth_largest", "sparsify_"]

# One entry in so many is sampled, and the first bracket reaches so many standard deviations.
_STRIDE = 73
_DEVIATIONS = 4.0
# Entries that are few enough to be put in order, counts at most, and how far a cut aims beyond.
_FEW, _CUTS, _BEYOND = 400, 6, 0.06


def sparsify_(
    attention: Float[Tensor, "b h N N"], theta: float, reference: bool = False
) -> Float[Tensor, "b h N N"]:
    """`sparsify` in place, for a contiguous tile on the CPU; the same result, entry by entry."""
    n = attention.shape[-1]
    kept = kept_entries(n, theta, reference)
    if kept == n * n:
        return attention
    for one in attention.view(-1, n * n):
        entries = one.numpy()
        threshold, reached = kth_largest(entries, kept)
        if threshold > 0 and reached > kept:
            # Equal entries at the threshold: kept by position.
            tied = one.view(1, 1, n, n)
            tied.copy_(sparsify(tied, theta, reference))
        elif threshold > 0:
            below = np.nextafter(threshold, threshold.dtype.type(0))
            torch.threshold_(one, float(below), 0.0)
    return attention


def kth_largest(entries: NDArray[np.floating], k: int) -> tuple[np.floating, int]:
    """The k-th largest of a one-dimensional array, and how many entries are at least as large.

    Args:
        entries: one-dimensional, no NaN.
        k: 1 ≤ k ≤ size.
    """
    floor, ceiling = _bracket(entries, k)
    above = int(np.count_nonzero(entries > ceiling))
    inside = int(np.count_nonzero(entries >= floor)) - above
    if not above < k <= above + inside:  # the sample misled
        return _ordered(entries, k, 0)
    for _ in range(_CUTS):
        if inside <= _FEW:
            break
        share = (k - above) / inside
        aim = share + (_BEYOND if share < 0.5 else -_BEYOND)
        cut = ceiling - (ceiling - floor) * entries.dtype.type(aim)
        count = int(np.count_nonzero(entries > cut))
        if count >= k:
            floor, inside = cut, count - above
        else:
            ceiling, inside, above = cut, inside - (count - above), count
    few = entries[np.flatnonzero((entries >= floor) & (entries <= ceiling))]
    return _ordered(few, k - above, above)


def _bracket(entries: NDArray[np.floating], k: int) -> tuple[np.floating, np.floating]:
    sample = entries[::_STRIDE]
    share = 1 - k / entries.size
    middle = sample.size * share
    reach = _DEVIATIONS * math.sqrt(sample.size * share * (1 - share)) + 1
    low = max(0, int(middle - reach))
    high = min(sample.size - 1, int(middle + reach) + 1)
    ordered = np.partition(sample, (low, high))
    return ordered[low], ordered[high]


def _ordered(few: NDArray[np.floating], rank: int, above: int) -> tuple[np.floating, int]:
    place = few.size - rank
    found: np.floating = np.partition(few, place)[place]
    return found, above + int(np.count_nonzero(few >= found))
