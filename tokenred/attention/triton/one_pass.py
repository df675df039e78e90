# mypy: ignore-errors
"""Output and statistics in one pass, for maps so narrow that a tile has all keys.

The softmax of a tile is then exact, and each entry is computed once. Column sums leave as one
partial sum per tile of queries and are added in a fixed order, so that runs are bit-identical.
"""

import torch
import triton
import triton.language as tl

from tokenred.attention.triton.launch import Launch, major_of, one_pass_blocks
from tokenred.attention.triton.tiles import load_bias, load_rows, logits, start_of

__all__ = ["one_pass"]


@triton.jit(do_not_specialize=["N", "row"])
def _one_pass(
    q_ptr, k_ptr, v_ptr, bias_ptr, out_ptr, part_ptr, diagonal_ptr, row_ptr,
    q_image, q_head, q_row, k_image, k_head, k_row, v_image, v_head, v_row,
    o_image, o_head, o_row, HEADS, N, scale, row,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    HAS_BIAS: tl.constexpr, UPCAST: tl.constexpr,
    COLUMNS: tl.constexpr, DIAGONAL: tl.constexpr, ROW: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(N, ROWS)
    at, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    rows, cols = tile * ROWS + tl.arange(0, ROWS), tl.arange(0, COLS)
    q_ptr = start_of(q_ptr, at, HEADS, q_image, q_head)
    k_ptr = start_of(k_ptr, at, HEADS, k_image, k_head)
    v_ptr = start_of(v_ptr, at, HEADS, v_image, v_head)
    q = load_rows(q_ptr, rows, N, q_row, WIDTH, PADDED, UPCAST)
    k = load_rows(k_ptr, cols, N, k_row, WIDTH, PADDED, UPCAST)
    x = logits(q, k, load_bias(bias_ptr + (at // HEADS) * N, cols, N, HAS_BIAS), scale)
    p = tl.exp2(x - tl.max(x, 1)[:, None])
    p *= tl.where(rows < N, 1.0 / tl.sum(p, 1), 0.0)[:, None]
    # Before the product with the values, which then needs no entries in float32. In this order no
    # registers are spilled, and the barrier keeps the values from being loaded too early.
    if DIAGONAL:
        own = tl.sum(tl.where(rows[:, None] == cols[None, :], p, 0.0), 1)
        tl.store(diagonal_ptr + at * N + rows, own, mask=rows < N)
    if COLUMNS:
        tl.store(part_ptr + (at * tiles + tile) * N + cols, tl.sum(p, 0), mask=cols < N)
    if ROW:  # noqa: SIM102 (known when compiling, unlike the next)
        if row // ROWS == tile:
            one = tl.sum(tl.where(rows[:, None] == row, p, 0.0), 0)
            tl.store(row_ptr + at * N + cols, one, mask=cols < N)
    tl.debug_barrier()
    v = load_rows(v_ptr, cols, N, v_row, WIDTH, PADDED, UPCAST)
    out = tl.dot(p.to(v.dtype), v, input_precision="tf32x3")
    across = tl.arange(0, PADDED)
    place = start_of(out_ptr, at, HEADS, o_image, o_head) + rows[:, None] * o_row + across[None, :]
    tl.store(place, out.to(out_ptr.dtype.element_ty),
             mask=(rows[:, None] < N) & (across[None, :] < WIDTH))  # fmt: skip


@torch.library.custom_op(
    "tokenred::attention_one_pass",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor? bias, float scale, bool column_sum, "
    "bool diagonal, int row) -> (Tensor, Tensor, Tensor, Tensor)",
)
def one_pass(q, k, v, bias, scale, column_sum, diagonal, row):
    """Attention with a bias on the keys, and statistics of its map, head by head.

    Args:
        q, k, v: ``(b, h, N, d)`` of one type, any strides; N at most `launch.MOST_KEYS`.
        bias: ``(b, N)`` in float32, or None.
        scale: factor on the logits.
        column_sum, diagonal: whether to sum the columns, and to take the diagonal.
        row: the query whose row is stored; −1 for none.

    Returns:
        The output ``(b, h, N, d)``, laid out as ``(b, N, h, d)``; and in float32 column sums
        ``(b, h, tiles, N)``, one for each tile of queries, the diagonal ``(b, h, N)`` and the row
        ``(b, h, N)``; empty if not requested.
    """
    launch = Launch(q, k, v, bias, scale, _blocks(q))
    outputs = _empty(launch.q, column_sum, diagonal, row)
    launch(
        _one_pass, launch.by_rows, (*launch.operands, *outputs),
        (*launch.strides, *outputs[0].stride()[:3]), (row,),
        COLUMNS=column_sum, DIAGONAL=diagonal, ROW=row >= 0,
    )  # fmt: skip
    return outputs


@one_pass.register_fake
def _(q, k, v, bias, scale, column_sum, diagonal, row):
    return _empty(q, column_sum, diagonal, row)


def _empty(q, column_sum, diagonal, row):
    b, h, n, d = q.shape
    tiles = -(-n // _blocks(q).rows)
    return (
        q.new_empty(b, n, h, d).transpose(1, 2),
        q.new_empty(b, h, tiles, n if column_sum else 0, dtype=torch.float32),
        q.new_empty(b, h, n if diagonal else 0, dtype=torch.float32),
        q.new_empty(b, h, n if row >= 0 else 0, dtype=torch.float32),
    )


def _blocks(q):
    return one_pass_blocks(q.shape[2], major_of(q.device))
