"""The threshold that θ means: the k-th largest entry of a map, found without sorting it.

Small maps are counted together (`mark_largest`), large ones are searched one by one. A strided
sample says where the threshold should lie. Entries are counted there; how far the count is off
tells where to count next, a little beyond, so that the threshold lies between the two. The entries
between are few, and are put in order. Two or three counts are the rule, and the result is exact
however the sample misleads.

The fast way stops as soon as a count is within `SLACK` of θ: each map for itself, so that an image
has the same result alone and in any batch.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from tokenred.attention.score_mods import kept_entries, slack_entries
from tokenred.attention.tiled.counting import mark_largest, stride_of

__all__ = ["kth_largest", "near_kth_largest", "sparsified"]

# So many entries are sampled, and one in so many more; a cut aims beyond by so many standard
# deviations of its place.
_SAMPLE, _ONE_IN, _BEYOND = 500, 250, 0.5
# Entries that are few enough to be put in order (at most, and of all), and counts at most.
_FEW, _FEW_OF, _CUTS = 6000, 30, 5
# The fast way need not know more of a larger map: its slack grows along.
_FAST_SAMPLE, _FAST_CUTS = 600, 4
# Entries of a map up to which maps are counted at once, since they stay in the cache; and how many
# maps are worth the calls.
_SMALL, _MANY = 1 << 17, 12


def sparsified(
    attention: Float[Tensor, "b h N N"],
    theta: float,
    reference: bool = False,
    *,
    fast: bool = False,
    out: Float[Tensor, "m entries"] | None = None,
) -> tuple[Float[Tensor, "b h N N"], NDArray[np.floating]]:
    """`sparsify` of a contiguous tile on the CPU: the same result, entry by entry.

    Args:
        attention: the tile.
        theta: share θ of entries to keep.
        reference: θ as the authors' program counts it.
        fast: keep a share of at most `SLACK` more or less than θ, as far as whole entries can.
        out: where to write, map by map; fresh memory costs page faults.

    Returns:
        The map, ``(b, h, N, N)``, which is the tile itself where all is kept, and the share of
        entries kept of each, image by head first.
    """
    b, h, n, _ = attention.shape
    total, kept = n * n, kept_entries(n, theta, reference)
    shares = np.full(b * h, kept / total)
    if kept == total:
        return attention, shares
    maps = attention.view(-1, total)
    # Not in place: one thread reads what several wrote, and where two cores share no cache, these
    # would wait for their own lines when they write again. That takes longer than the search.
    out = torch.empty_like(maps) if out is None else out
    slack = min(slack_entries(total), kept - 1) if fast else 0  # one stays at least
    # The exact result is the same either way, the fast one must not depend on how many there are.
    if total <= _SMALL and (slack or len(maps) >= _MANY):
        reached = mark_largest(maps, kept, out, slack)
        torch.mul(maps, out, out=out)
        return out.view_as(attention), reached / total
    for at, entries in enumerate(maps.numpy()):
        near = near_kth_largest(entries, kept, slack) if slack else None
        cut, count = kth_largest(entries, kept) if near is None else near
        below = np.nextafter(cut, -1, dtype=cut.dtype)
        torch.threshold(maps[at], float(below), 0.0, out=out[at])
        if cut <= 0:
            continue  # what would go is zero already
        if near is None and count > kept:
            out.numpy()[at, _surplus(entries, cut, count - kept)] = 0
            count = kept
        shares[at] = count / total
    return out.view_as(attention), shares


def kth_largest(entries: NDArray[np.floating], k: int) -> tuple[np.floating, int]:
    """The k-th largest of a one-dimensional array, and how many entries are at least as large.

    Args:
        entries: one-dimensional, no NaN.
        k: 1 ≤ k ≤ size.
    """
    stride = stride_of(entries.size, _SAMPLE + entries.size // _ONE_IN)
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
    sample = np.sort(entries[:: stride_of(entries.size, _FAST_SAMPLE)])
    place = sample.size * (1 - k / entries.size)
    for _ in range(_FAST_CUTS):
        cut = sample[min(max(int(place), 0), sample.size - 1)]
        count = int(np.count_nonzero(entries >= cut))
        if abs(count - k) <= slack:
            return cut, count
        # As far along the sample as the count was off.
        place += (count - k) / entries.size * sample.size
    return None


def _ordered(few: NDArray[np.floating], rank: int, above: int) -> tuple[np.floating, int]:
    """The ``rank``-th largest of these, and how many reach it, with those above."""
    place = few.size - rank
    found: np.floating = np.partition(few, place)[place]
    return found, above + int(np.count_nonzero(few >= found))


def _surplus(
    entries: NDArray[np.floating], threshold: np.floating, many: int
) -> NDArray[np.integer]:
    """Places of the last so many entries that equal the threshold: the first ones stay."""
    equal = np.flatnonzero(entries == threshold)
    return equal[equal.size - many :]
