"""The threshold that θ means: the k-th largest entry of a map, found without sorting it.

A strided sample brackets the threshold; counting says how many entries lie above the bracket; only
the few inside are looked at in order. NumPy does each step several times faster than PyTorch on
the CPU. The result is exact: where the bracket misses, the whole map is searched.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from tokenred.attention.edits import kept_entries, sparsify

__all__ = ["kth_largest", "sparsify_"]

# One entry in so many is sampled, and the bracket is so many standard deviations wide.
_STRIDE = 37
_DEVIATIONS = 4.0


def sparsify_(
    attention: Float[Tensor, "b h N N"], theta: float, reference: bool = False
) -> Float[Tensor, "b h N N"]:
    """`sparsify` in place, for a contiguous tile on the CPU; the same result, entry by entry."""
    n = attention.shape[-1]
    kept = kept_entries(n, theta, reference)
    if kept == n * n:
        return attention
    maps = attention.view(-1, n * n)
    for number, entries in enumerate(maps.numpy()):
        threshold = kth_largest(entries, kept)
        keep = entries >= threshold
        if threshold > 0 and np.count_nonzero(keep) > kept:
            # Equal entries at the threshold: kept by position.
            one = maps[number].view(1, 1, n, n)
            one.copy_(sparsify(one, theta, reference))
        else:
            np.multiply(entries, keep, out=entries)
    return attention


def kth_largest(entries: NDArray[np.floating], k: int) -> np.floating:
    """The k-th largest of a one-dimensional array, 1 ≤ k ≤ size."""
    size = entries.size
    sample = entries[::_STRIDE]
    share = 1 - k / size
    middle = sample.size * share
    reach = _DEVIATIONS * math.sqrt(sample.size * share * (1 - share)) + 1
    low = max(0, int(middle - reach))
    high = min(sample.size - 1, int(middle + reach) + 1)
    ordered = np.partition(sample, (low, high))
    floor, ceiling = ordered[low], ordered[high]
    above = int(np.count_nonzero(entries > ceiling))
    inside = entries[np.flatnonzero((entries >= floor) & (entries <= ceiling))]
    rank = k - above
    if not 1 <= rank <= inside.size:  # the sample misled
        inside, rank = entries, k
    place = inside.size - rank
    found: np.floating = np.partition(inside, place)[place]
    return found
