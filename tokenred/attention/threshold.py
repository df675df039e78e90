"""The threshold that θ means: the k-th largest entry of a map, found without sorting it.

A strided sample says where the threshold should lie. Entries are counted there; how far the count
is off tells where to count next, a little beyond, so that the threshold lies between the two. The
entries between are few, and are put in order. Two or three counts are the rule, and the result is
exact however the sample misleads. NumPy counts several times faster than PyTorch does on the CPU.

The fast way stops as soon as a count is within `SLACK` of what θ asks.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from tokenred.attention.edits import SLACK, kept_entries

__all__ = ["kth_largest", "near_kth_largest", "sparsify_"]

# So many entries are sampled, and one in so many more; a cut aims beyond by so many standard
# deviations of its place.
_SAMPLE, _ONE_IN, _BEYOND = 500, 250, 0.5
# Entries that are few enough to be put in order (at most, and of all), and counts at most.
_FEW, _FEW_OF, _CUTS = 6000, 30, 5
# The fast way need not know more of a larger map: its slack grows along.
_FAST_SAMPLE, _FAST_CUTS = 600, 4
# Entries of a map from which on masks of all maps fall out of the cache.
_LARGE = 1 << 17


def sparsify_(
    attention: Float[Tensor, "b h N N"],
    theta: float,
    reference: bool = False,
    *,
    fast: bool = False,
    spare: tuple[Float[Tensor, "m entries"], Float[Tensor, "m entries"]] | None = None,
) -> NDArray[np.floating]:
    """`sparsify` in place, for a contiguous tile on the CPU; the same result, entry by entry.

    Args:
        attention: the tile, changed in place.
        theta: share θ of entries to keep.
        reference: θ as the authors' program counts it.
        fast: keep a share of at most `SLACK` more or less than θ.
        spare: room for as many numbers twice, written over; fresh memory costs page faults.

    Returns:
        The share of entries kept of each map, image by head first.
    """
    b, h, n, _ = attention.shape
    total, kept = n * n, kept_entries(n, theta, reference)
    shares = np.full(b * h, kept / total)
    if kept == total:
        return shares
    maps = attention.view(-1, total)
    read, mask = (torch.empty_like(maps), torch.empty_like(maps)) if spare is None else spare
    # One thread reads what is written for it. If it read the maps themselves, the others would wait
    # for their own lines when they write again: longer than the search takes, where two cores
    # share no cache.
    read = read.copy_(maps) if torch.get_num_threads() > 1 else maps
    cuts = np.zeros(b * h, dtype=maps.numpy().dtype)
    for at, entries in enumerate(read.numpy()):
        near = near_kth_largest(entries, kept, SLACK * total) if fast else None
        cuts[at], reached = kth_largest(entries, kept) if near is None else near
        if cuts[at] <= 0:
            continue  # what would go is zero already
        if near is None and reached > kept:
            # Equal entries at the threshold: the first ones stay.
            equal = np.flatnonzero(entries == cuts[at])
            maps.numpy()[at, equal[equal.size - (reached - kept) :]] = 0
            reached = kept
        shares[at] = reached / total
    # All at once: threads that PyTorch wakes for each map in turn fall asleep.
    _cut_(maps, cuts, mask)
    return shares


def _cut_(
    maps: Float[Tensor, "m entries"], cuts: NDArray[np.floating], mask: Float[Tensor, "m entries"]
) -> None:
    """Zero what is below each map's cut."""
    if maps.shape[1] > _LARGE:
        for one, cut in zip(maps, cuts, strict=True):
            torch.threshold_(one, float(np.nextafter(cut, -1, dtype=cut.dtype)), 0.0)
        return
    # As numbers, since PyTorch writes booleans slowly.
    maps.mul_(torch.ge(maps, torch.from_numpy(cuts)[:, None], out=mask))


def kth_largest(entries: NDArray[np.floating], k: int) -> tuple[np.floating, int]:
    """The k-th largest of a one-dimensional array, and how many entries are at least as large.

    Args:
        entries: one-dimensional, no NaN.
        k: 1 ≤ k ≤ size.
    """
    stride = _stride(entries.size, _SAMPLE + entries.size // _ONE_IN)
    sample = np.sort(entries[::stride])
    enough = min(_FEW, entries.size // _FEW_OF)
    place = sample.size * (1 - k / entries.size)
    # Which entries reach the best cut below and above the threshold, and how many.
    low = high = None
    reach_low, reach_high = entries.size, 0
    for _ in range(_CUTS):
        cut = sample[min(max(int(place), 0), sample.size - 1)]
        reached = entries >= cut
        count = int(np.count_nonzero(reached))
        if k <= count <= reach_low:
            low, reach_low = reached, count
        elif reach_high <= count < k:
            high, reach_high = reached, count
        if reach_low - reach_high <= enough:
            break
        off = (count - k) / stride
        place += off + math.copysign(_BEYOND * math.sqrt(abs(off)) + 1, off)
    few = entries
    if low is not None and high is not None:
        few = entries[np.flatnonzero(low ^ high)]
    elif low is not None:
        few = entries[low]
    elif high is not None:
        few = entries[~high]
    return _ordered(few, k - reach_high, reach_high)


def near_kth_largest(
    entries: NDArray[np.floating], k: int, slack: float
) -> tuple[np.floating, int] | None:
    """A value that k ± slack entries reach, and how many do; None where a few counts find none.

    Args:
        entries: one-dimensional, no NaN.
        k: 1 ≤ k ≤ size.
        slack: in entries.
    """
    sample = np.sort(entries[:: _stride(entries.size, _FAST_SAMPLE)])
    place = sample.size * (1 - k / entries.size)
    for _ in range(_FAST_CUTS):
        cut = sample[min(max(int(place), 0), sample.size - 1)]
        count = int(np.count_nonzero(entries >= cut))
        if abs(count - k) <= slack:
            return cut, count
        # As far along the sample as the count was off.
        place += (count - k) / entries.size * sample.size
    return None


def _stride(size: int, sample: int) -> int:
    """Steps through so many entries that see every column of a map."""
    stride = max(1, size // sample)
    while math.gcd(stride, size) > 1:
        stride += 1
    return stride


def _ordered(few: NDArray[np.floating], rank: int, above: int) -> tuple[np.floating, int]:
    place = few.size - rank
    found: np.floating = np.partition(few, place)[place]
    return found, above + int(np.count_nonzero(few >= found))
