# mypy: ignore-errors
"""Column sums, diagonal and first rows of the map, recomputed from the log-sum-exp.

One program handles some keys and iterates over all queries, so that every sum has a fixed order and
runs are bit-identical.
"""

import torch
import triton
import triton.language as tl

from tokenred.attention.triton.launch import Launch, major_of, statistics_blocks
from tokenred.attention.triton.tiles import kept, load_bias, load_lse, load_rows, logits, start_of

__all__ = ["statistics"]


@triton.jit(do_not_specialize=["N", "first_rows"])
def _statistics(
    q_ptr, k_ptr, bias_ptr, lse_ptr, cut_ptr, column_ptr, diagonal_ptr, row_ptr,
    q_image, q_head, q_row, k_image, k_head, k_row, HEADS, N, scale, first_rows,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    HAS_BIAS: tl.constexpr, UPCAST: tl.constexpr,
    SPARSE: tl.constexpr, COLUMNS: tl.constexpr, DIAGONAL: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(N, COLS)
    at = tl.program_id(0) // blocks
    left = (tl.program_id(0) % blocks) * COLS
    cols = left + tl.arange(0, COLS)
    q_ptr = start_of(q_ptr, at, HEADS, q_image, q_head)
    k_ptr = start_of(k_ptr, at, HEADS, k_image, k_head)
    k = load_rows(k_ptr, cols, N, k_row, WIDTH, PADDED, UPCAST)
    bias = load_bias(bias_ptr + (at // HEADS) * N, cols, N, HAS_BIAS)
    if SPARSE:
        threshold, last = tl.load(cut_ptr + at * 3), tl.load(cut_ptr + at * 3 + 1)

    column_sum = tl.zeros([COLS], tl.float32)
    diagonal = tl.zeros([COLS], tl.float32)
    # Without column sums only the first rows and those down to the diagonal are read.
    end = N
    if not COLUMNS:
        end = tl.minimum(N, tl.maximum(first_rows, left + COLS if DIAGONAL else 0))
    for top in range(0, end, ROWS):
        rows = top + tl.arange(0, ROWS)
        q = load_rows(q_ptr, rows, N, q_row, WIDTH, PADDED, UPCAST)
        x = logits(q, k, bias, scale) - load_lse(lse_ptr + at * N, rows, N)[:, None]
        p = tl.exp2(x)
        if SPARSE:
            p = tl.where(kept(x, rows, cols, N, threshold, last), p, 0.0)
        if COLUMNS:
            column_sum += tl.sum(p, 0)
        if DIAGONAL:  # noqa: SIM102 (known when compiling, unlike the next)
            if (top < left + COLS) & (left < top + ROWS):
                diagonal += tl.sum(tl.where(rows[:, None] == cols[None, :], p, 0.0), 0)
        if top < first_rows:
            place = row_ptr + at * first_rows * N + rows[:, None] * N + cols[None, :]
            tl.store(place, p, mask=(rows[:, None] < first_rows) & (cols[None, :] < N))

    if COLUMNS:
        tl.store(column_ptr + at * N + cols, column_sum, mask=cols < N)
    if DIAGONAL:
        tl.store(diagonal_ptr + at * N + cols, diagonal, mask=cols < N)


@torch.library.custom_op(
    "tokenred::attention_statistics",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor? bias, Tensor lse, Tensor? cut, float scale, "
    "bool column_sum, bool diagonal, int rows) -> (Tensor, Tensor, Tensor)",
)
def statistics(q, k, bias, lse, cut, scale, column_sum, diagonal, rows):
    """Statistics of the map, head by head, in float32.

    Args:
        q, k, bias, scale: as in `forward`.
        lse: log-sum-exp of the queries ``(b, h, N)``, to the base 2.
        cut: θ's threshold, from `threshold`, or None for the whole map.
        column_sum, diagonal: whether to sum the columns, and to take the diagonal.
        rows: number of first rows to store.

    Returns:
        Column sums ``(b, h, N)``, diagonal ``(b, h, N)`` and rows ``(b, h, rows, N)``; empty if not
        requested.
    """
    blocks = statistics_blocks(q.shape[-1], q.dtype, major_of(q.device))
    launch = Launch(q, k, q, bias, scale, blocks)
    outputs = _empty(q, column_sum, diagonal, rows)
    launch(
        _statistics, launch.by_cols,
        (launch.q, launch.k, launch.operands[3], lse, lse if cut is None else cut, *outputs),
        launch.strides[:6], (rows,),
        SPARSE=cut is not None, COLUMNS=column_sum, DIAGONAL=diagonal,
    )  # fmt: skip
    return outputs


@statistics.register_fake
def _(q, k, bias, lse, cut, scale, column_sum, diagonal, rows):
    return _empty(q, column_sum, diagonal, rows)


def _empty(q, column_sum, diagonal, rows):
    b, h, n, _ = q.shape
    return (
        q.new_empty(b, h, n if column_sum else 0, dtype=torch.float32),
        q.new_empty(b, h, n if diagonal else 0, dtype=torch.float32),
        q.new_empty(b, h, rows, n, dtype=torch.float32),
    )
