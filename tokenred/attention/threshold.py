"""The threshold that θ means: the k-th largest entry of a map, found without sorting it.

A strided sample brackets the threshold. Counting narrows the bracket: each count cuts it where the
threshold should lie if the entries inside were spread evenly, a little to the far side, so that the
short piece remains. The few entries left are looked at in order. NumPy counts several times faster
than PyTorch does on the CPU. The result is exact: where the sample misleads, all is searched.

The fast way stops as soon as a count is within `SLACK` of what θ asks.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from tokenred.attention.edits import SLACK, kept_entries, sparsify

__all__ = ["kth_largest", "near_kth_largest", "sparsify_"]

# One entry in so many is sampled, and the first bracket reaches so many standard deviations.
_STRIDE = 73
_DEVIATIONS = 4.0
# Entries that are few enough to be put in order, counts at most, and how far a cut aims beyond.
_FEW, _CUTS, _BEYOND = 400, 6, 0.06
# The fast way looks at more, so that it need not count often.
_FAST_STRIDE, _FAST_CUTS = 37, 4
_ZERO = {np.dtype(kind): kind(0) for kind in (np.float32, np.float64)}


def sparsify_(
    attention: Float[Tensor, "b h N N"],
    theta: float,
    reference: bool = False,
    *,
    fast: bool = False,
) -> Float[Tensor, "b h"]:
    """`sparsify` in place, for a contiguous tile on the CPU; the same result, entry by entry.

    Args:
        attention: the tile, changed in place.
        theta: share θ of entries to keep.
        reference: θ as the authors' program counts it.
        fast: keep a share of at most `SLACK` more or less than θ.

    Returns:
        The share of entries kept, by image and head.
    """
    b, h, n, _ = attention.shape
    total, kept = n * n, kept_entries(n, theta, reference)
    shares = np.full(b * h, kept / total)
    if kept == total:
        return torch.from_numpy(shares).view(b, h).to(attention.dtype)
    maps = attention.view(-1, total)
    slack, find = (SLACK * total, _near) if fast else (0.0, kth_largest)
    found = [find(entries, kept) for entries in maps.numpy()]
    # Found first and applied after: threads that PyTorch wakes for each map in turn fall asleep.
    for at, (one, (threshold, reached)) in enumerate(zip(maps.unbind(0), found, strict=True)):
        if threshold <= 0:
            continue  # what would go is zero already
        if reached - kept > slack:
            # Equal entries at the threshold: kept by position.
            tied = one.view(1, 1, n, n)
            tied.copy_(sparsify(tied, theta, reference))
            continue
        torch.threshold_(one, float(np.nextafter(threshold, _ZERO[threshold.dtype])), 0.0)
        shares[at] = reached / total
    return torch.from_numpy(shares).view(b, h).to(attention.dtype)


def _near(entries: NDArray[np.floating], k: int) -> tuple[np.floating, int]:
    return near_kth_largest(entries, k, SLACK * entries.size)


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


def near_kth_largest(
    entries: NDArray[np.floating], k: int, slack: float
) -> tuple[np.floating, int]:
    """A value that k ± slack entries reach, and how many do; `kth_largest` where none is found.

    Args:
        entries: one-dimensional, no NaN.
        k: 1 ≤ k ≤ size.
        slack: in entries.
    """
    sample = np.sort(entries[::_FAST_STRIDE])
    place = sample.size * (1 - k / entries.size)
    for _ in range(_FAST_CUTS):
        cut = sample[min(max(int(place), 0), sample.size - 1)]
        count = int(np.count_nonzero(entries >= cut))
        if abs(count - k) <= slack:
            return cut, count
        # As far along the sample as the count was off.
        place += (count - k) / entries.size * sample.size
    return kth_largest(entries, k)


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
