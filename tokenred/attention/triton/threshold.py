# mypy: ignore-errors
"""The threshold that θ means, found by counting over recomputed tiles; no map is stored.

One program has one image and head. It counts how many entries reach each of some evenly spaced
edges, and goes on between the two edges that the k-th largest entry lies between: first on a few
rows, for a bracket that is narrow and seldom wrong, then on all, until an edge is reached by
exactly k entries. Where entries are equal there may be no such edge: then the places of the equal
ones are searched in the same way, and the first of them stay, row by row.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tokenred.attention.triton.launch import Launch
from tokenred.attention.triton.tiles import (
    BOTTOM,
    TOP,
    fixed,
    load_bias,
    load_lse,
    load_rows,
    logits,
    start_of,
)

__all__ = ["threshold"]

# Bins of a histogram: below all edges, between two, above all.
BINS = tl.constexpr(64)
# Rows that are sampled, and how often.
SAMPLE = tl.constexpr(16)
LOOKS = tl.constexpr(3)


@triton.jit
def _reached(
    q_ptr, k_ptr, bias_ptr, lse_ptr, q_row, k_row, N, scale, begin, step, end, low, shift, level,
    PLACES: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
    COLS: tl.constexpr, HAS_BIAS: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """How many entries reach each edge; with PLACES, how many places, negative, of equal ones."""
    counts = tl.zeros([BINS], tl.int32)
    for top in range(0, end, ROWS):
        index = top + tl.arange(0, ROWS)
        rows = tl.where(index < end, begin + index * step, N)
        q = load_rows(q_ptr, rows, N, q_row, WIDTH, PADDED, UPCAST)
        lse = load_lse(lse_ptr, rows, N)
        for left in range(0, N, COLS):
            cols = left + tl.arange(0, COLS)
            k = load_rows(k_ptr, cols, N, k_row, WIDTH, PADDED, UPCAST)
            x = logits(q, k, load_bias(bias_ptr, cols, N, HAS_BIAS), scale) - lse[:, None]
            entry = fixed(x)
            if PLACES:
                entry = tl.where(entry == level, -(rows[:, None] * N + cols[None, :]), BOTTOM)
            # What lies beyond the tokens is at the bottom, where the count is known without it.
            bins = tl.minimum(tl.maximum((entry - low) >> shift, -1), BINS - 2) + 1
            counts += tl.histogram(tl.reshape(bins, [ROWS * COLS]), BINS)
    return tl.cumsum(counts, 0, reverse=True)


@triton.jit
def _shift(span):
    """The least width of a bin, as a power of two, with which all of them span so much."""
    shift = 0
    while ((BINS - 2) << shift) < span:
        shift += 1
    return shift


@triton.jit
def _between(reached, total, low, shift, at_least, fewer_than):
    """The highest edge that so many reach, the lowest that fewer reach, and how many do."""
    bins = tl.arange(0, BINS)
    edges = tl.where(bins == 0, BOTTOM, low + ((bins - 1) << shift))
    reached = tl.where(bins == 0, total, reached)
    under, over = reached >= at_least, reached < fewer_than
    return (
        tl.max(tl.where(under, edges, BOTTOM)),
        tl.min(tl.where(over, edges, TOP)),
        tl.min(tl.where(under, reached, total)),
        tl.max(tl.where(over, reached, 0)),
    )


@triton.jit
def _search(
    q_ptr, k_ptr, bias_ptr, lse_ptr, q_row, k_row, N, scale, low, high, k, slack, level,
    PLACES: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
    COLS: tl.constexpr, HAS_BIAS: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """The highest edge that k entries reach (or one that k ± slack do), how many, and above it."""
    reached, above, searching = N * N, 0, True
    while searching:
        shift = _shift(high - low)
        counts = _reached(
            q_ptr, k_ptr, bias_ptr, lse_ptr, q_row, k_row, N, scale, 0, 1, N, low, shift, level,
            PLACES, WIDTH, PADDED, ROWS, COLS, HAS_BIAS, UPCAST,
        )  # fmt: skip
        low, high, reached, above = _between(counts, N * N, low, shift, k, k)
        if (k - above <= slack) & (k - above < reached - k):
            low, reached = high, above
        searching = (reached - k > slack) & (high - low > 1)
    return low, reached, above


@triton.jit(do_not_specialize=["N", "k", "slack"])
def _threshold(
    q_ptr, k_ptr, bias_ptr, lse_ptr, cut_ptr, q_image, q_head, q_row, k_image, k_head, k_row,
    HEADS, N, scale, k, slack,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    HAS_BIAS: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0)
    q_ptr = start_of(q_ptr, at, HEADS, q_image, q_head)
    k_ptr = start_of(k_ptr, at, HEADS, k_image, k_head)
    bias_ptr += (at // HEADS) * N
    lse_ptr += at * N

    low, high = BOTTOM + 0, TOP + 0
    if N >= 4 * SAMPLE:
        step, share = N // SAMPLE, k // N * SAMPLE
        margin = SAMPLE * N // 20
        for _ in range(LOOKS):
            shift = _shift(high - low)
            counts = _reached(
                q_ptr, k_ptr, bias_ptr, lse_ptr, q_row, k_row, N, scale, step // 2, step, SAMPLE,
                low, shift, 0,
                False, WIDTH, PADDED, SAMPLE, COLS, HAS_BIAS, UPCAST,
            )  # fmt: skip
            low, high, _, _ = _between(
                counts, SAMPLE * N, low, shift, share + margin, share - margin
            )

    level, reached, above = _search(
        q_ptr, k_ptr, bias_ptr, lse_ptr, q_row, k_row, N, scale, low, high, k, slack, 0,
        False, WIDTH, PADDED, ROWS, COLS, HAS_BIAS, UPCAST,
    )  # fmt: skip
    last = N * N
    if (reached - k > slack) & (level > BOTTOM):
        place, _, _ = _search(
            q_ptr, k_ptr, bias_ptr, lse_ptr, q_row, k_row, N, scale, -N * N, N, k - above, 0, level,
            True, WIDTH, PADDED, ROWS, COLS, HAS_BIAS, UPCAST,
        )  # fmt: skip
        last = -place
    tl.store(cut_ptr + at * 3, level)
    tl.store(cut_ptr + at * 3 + 1, last)
    tl.store(cut_ptr + at * 3 + 2, tl.where(reached - k > slack, k, reached))


@torch.library.custom_op(
    "tokenred::attention_threshold",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor? bias, Tensor lse, float scale, int kept, int slack) "
    "-> Tensor",
)
def threshold(q, k, bias, lse, scale, kept, slack):
    """Where θ cuts the map of each image and head.

    Args:
        q, k, bias, scale: as in `forward`.
        lse: log-sum-exp of the queries ``(b, h, N)``, to the base 2.
        kept: entries to keep.
        slack: how many more or fewer may be kept; 0 for the exact threshold.

    Returns:
        ``(b, h, 3)`` whole numbers: the threshold of log2 A in steps of 2⁻²³, the place of the last
        entry on it that is kept (row · N + column), and how many entries are kept.
    """
    launch = Launch(q, k, q, bias, scale)
    cut = _empty(q)
    launch(
        _threshold, launch.by_maps, (launch.q, launch.k, launch.operands[3], lse, cut),
        launch.strides[:6], (kept, slack),
    )  # fmt: skip
    return cut


@threshold.register_fake
def _(q, k, bias, lse, scale, kept, slack):
    return _empty(q)


def _empty(q):
    return q.new_empty(*q.shape[:2], 3, dtype=torch.int32)
