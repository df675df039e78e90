# mypy: ignore-errors
"""The threshold for θ, found by counting over recomputed tiles; no map is stored.

One program handles one image and head. It counts how many entries reach each of several evenly
spaced edges, and continues between the two edges around the k-th largest entry: first on a few
rows, for a narrow bracket that is rarely wrong, then on all rows, until exactly k entries reach an
edge. With ties there may be no such edge: then the positions of the equal entries are searched in
the same way, and the first of them are kept, row by row.
"""

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
# Number of sampled rows, and of repetitions.
SAMPLE = tl.constexpr(16)
LOOKS = tl.constexpr(3)


@triton.jit
def _reached(
    q_ptr, k_ptr, bias_ptr, lse_ptr, q_row, k_row, N, scale, begin, step, end, low, shift, level,
    PLACES: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
    COLS: tl.constexpr, HAS_BIAS: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """The number of entries that reach each edge; with PLACES, of (negated) positions of ties."""
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
            # Padding is at the bottom, where the count is known without it.
            bins = tl.minimum(tl.maximum((entry - low) >> shift, -1), BINS - 2) + 1
            counts += tl.histogram(tl.reshape(bins, [ROWS * COLS]), BINS)
    return tl.cumsum(counts, 0, reverse=True)


@triton.jit
def _shift(span):
    """The smallest bin width, as a power of two, with which all bins cover the range."""
    shift = 0
    while ((BINS - 2) << shift) < span:
        shift += 1
    return shift


@triton.jit
def _between(reached, total, low, shift, at_least, fewer_than):
    """The highest edge reached by this many, the lowest reached by fewer, and their counts."""
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
    """The highest edge that k (or k ± slack) entries reach, their number, and that above it."""
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
    """θ's threshold for the map of each image and head.

    Args:
        q, k, bias, scale: as in `forward`.
        lse: log-sum-exp of the queries ``(b, h, N)``, to the base 2.
        kept: entries to keep.
        slack: by how many the count may differ; 0 for the exact threshold.

    Returns:
        ``(b, h, 3)`` integers: the threshold of log2 A in steps of 2⁻²³, the position of the last
        kept entry equal to it (row · N + column), and the number of kept entries.
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
