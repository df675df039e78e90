"""The threshold for θ: the k-th largest entry of a map, found without sorting.

Small maps are counted together (`mark_largest`), large ones are searched one by one. A strided
sample estimates the threshold. Entries are counted there; the error of the count gives the next
estimate, slightly beyond, so that the threshold lies between the two. The few entries in between
are sorted. Usually two or three counts suffice, and the result is exact even if the sample is
misleading.

The fast search stops as soon as a count is within `SLACK` of θ, separately for each map, so that an
image has the same result alone and in any batch.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from tokenred.attention.score_mods import kept_entries, slack_entries
from tokenred.attention.tiled.counting import mark_largest, stride_of

# Number of entries sampled, plus one in this many; by how many standard deviations a cut
# overshoots. The fast search needs no larger sample for a larger map: its slack grows, too.
_SAMPLE, _ONE_IN, _BEYOND = 500, 250, 0.5
_FAST_SAMPLE = 600
# Number and share of entries that are few enough to sort, and the maximum number of counts.
_FEW, _FEW_OF, _CUTS = 6000, 30, 5
# Entries of a map up to which maps are counted together, since they stay in cache; and the number
# of maps that makes the calls worthwhile.
_SMALL, _MANY = 1 << 17, 12


def sparsified(
    attention: Float[Tensor, "b h N N"],
    theta: float,
    reference: bool = False,
    *,
    fast: bool = False,
    out: Float[Tensor, "m entries"] | None = None,
) -> tuple[Float[Tensor, "b h N N"], NDArray[np.floating]]:
    """`sparsify` for a contiguous tile on the CPU, with exactly the same result.

    Args:
        attention: the tile.
        theta: share θ of entries to keep.
        reference: count entries for θ as in the authors' code.
        fast: keep a share within `SLACK` of θ, as far as whole entries allow.
        out: the output, map by map; fresh memory costs page faults.

    Returns:
        The map, ``(b, h, N, N)``, which is the tile itself if everything is kept, and the share of
        entries kept per image and head.
    """
    b, h, n, _ = attention.shape
    total, kept = n * n, kept_entries(n, theta, reference)
    shares = np.full(b * h, kept / total)
    if kept == total:
        return attention, shares
    maps = attention.view(-1, total)
    # Not in place: one thread reads what several wrote, and if cores share no cache, the others
    # wait for their own cache lines when they write again, which takes longer than the search.
    out = torch.empty_like(maps) if out is None else out
    slack = min(slack_entries(total), kept - 1) if fast else 0  # at least one is kept
    # The exact result is the same either way; the fast one must not depend on the number of maps.
    if total <= _SMALL and (slack or len(maps) >= _MANY):
        reached = mark_largest(maps, kept, out, slack)
        torch.mul(maps, out, out=out)
        return out.view_as(attention), reached / total
    for at, entries in enumerate(maps.numpy()):
        cut, count = kth_largest(entries, kept, slack)
        below = np.nextafter(cut, -1, dtype=cut.dtype)
        torch.threshold(maps[at], float(below), 0.0, out=out[at])
        if cut <= 0:
            continue  # the entries to remove are already zero
        if count - kept > slack:  # of equal entries the first are kept
            equal = np.flatnonzero(entries == cut)
            out.numpy()[at, equal[equal.size - (count - kept) :]] = 0
            count = kept
        shares[at] = count / total
    return out.view_as(attention), shares


def kth_largest(entries: NDArray[np.floating], k: int, slack: int = 0) -> tuple[np.floating, int]:
    """The k-th largest of some entries, and the number of entries at least as large.

    Args:
        entries: one-dimensional, no NaN.
        k: 1 ≤ k ≤ size.
        slack: a value that k ± slack entries reach will do, if a few counts find one.
    """
    wanted = _FAST_SAMPLE if slack else _SAMPLE + entries.size // _ONE_IN
    stride = stride_of(entries.size, wanted)
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
        if abs(count - k) <= slack:
            return cut, count
        if k <= count <= reach_low:
            low, reach_low = reached, count
        elif reach_high <= count < k:
            high, reach_high = reached, count
        if not slack and reach_low - reach_high <= enough:
            break
        off = (count - k) / stride
        place += off if slack else off + math.copysign(_BEYOND * math.sqrt(abs(off)) + 1, off)
    few = entries
    if low is not None and high is not None:
        few = entries[np.flatnonzero(low ^ high)]
    elif low is not None:
        few = entries[low]
    elif high is not None:
        few = entries[~high]
    rank = few.size - (k - reach_high)
    found: np.floating = np.partition(few, rank)[rank]
    return found, reach_high + int(np.count_nonzero(few >= found))
