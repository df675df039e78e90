# mypy: ignore-errors
"""The output of attention without the map: whole, or through the entries that θ keeps."""

import torch
import triton
import triton.language as tl

from tokenred.attention.triton.launch import Launch
from tokenred.attention.triton.tiles import kept, load_bias, load_lse, load_rows, logits, start_of

__all__ = ["forward"]


@triton.jit(do_not_specialize=["N"])
def _forward(
    q_ptr, k_ptr, v_ptr, bias_ptr, lse_ptr, cut_ptr, out_ptr,
    q_image, q_head, q_row, k_image, k_head, k_row, v_image, v_head, v_row,
    o_image, o_head, o_row, HEADS, N, scale,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    HAS_BIAS: tl.constexpr, UPCAST: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(N, ROWS)
    at = tl.program_id(0) // blocks
    rows = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    k_ptr = start_of(k_ptr, at, HEADS, k_image, k_head)
    v_ptr = start_of(v_ptr, at, HEADS, v_image, v_head)
    bias_ptr += (at // HEADS) * N
    q_ptr = start_of(q_ptr, at, HEADS, q_image, q_head)
    q = load_rows(q_ptr, rows, N, q_row, WIDTH, PADDED, UPCAST)
    if SPARSE:
        lse = load_lse(lse_ptr + at * N, rows, N)
        threshold, last = tl.load(cut_ptr + at * 3), tl.load(cut_ptr + at * 3 + 1)

    most = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, PADDED], tl.float32)
    for first in range(0, N, COLS):
        cols = first + tl.arange(0, COLS)
        k = load_rows(k_ptr, cols, N, k_row, WIDTH, PADDED, UPCAST)
        x = logits(q, k, load_bias(bias_ptr, cols, N, HAS_BIAS), scale)
        if SPARSE:
            x = x - lse[:, None]
            p = tl.where(kept(x, rows, cols, N, threshold, last), tl.exp2(x), 0.0)
        else:
            higher = tl.maximum(most, tl.max(x, 1))
            # While all keys so far are masked, −∞ − (−∞) would be NaN.
            origin = tl.where(higher == float("-inf"), 0.0, higher)
            p = tl.exp2(x - origin[:, None])
            shrink = tl.exp2(most - origin)
            total = total * shrink + tl.sum(p, 1)
            out = out * shrink[:, None]
            most = higher
        v = load_rows(v_ptr, cols, N, v_row, WIDTH, PADDED, UPCAST)
        out = tl.dot(p.to(v.dtype), v, out, input_precision="tf32x3")

    if not SPARSE:
        tl.store(lse_ptr + at * N + rows, most + tl.log2(total), mask=rows < N)
        out = out / total[:, None]
    across = tl.arange(0, PADDED)
    place = start_of(out_ptr, at, HEADS, o_image, o_head) + rows[:, None] * o_row + across[None, :]
    tl.store(place, out.to(out_ptr.dtype.element_ty),
             mask=(rows[:, None] < N) & (across[None, :] < WIDTH))  # fmt: skip


@torch.library.custom_op(
    "tokenred::attention_forward",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor? bias, float scale, Tensor? lse=None, "
    "Tensor? cut=None) -> (Tensor, Tensor)",
)
def forward(q, k, v, bias, scale, lse=None, cut=None):
    """Attention with a bias on the keys; or through the entries that θ keeps, not renormalised.

    Args:
        q, k, v: ``(b, h, N, d)`` of one type, any strides.
        bias: ``(b, N)`` in float32, or None.
        scale: factor on the logits.
        lse, cut: with θ < 1, what a first call returned, and the threshold from `threshold`.

    Returns:
        The output ``(b, h, N, d)``, laid out as ``(b, N, h, d)``, and the log-sum-exp of each
        query's logits ``(b, h, N)`` in float32, to the base 2; empty if it was given.
    """
    launch = Launch(q, k, v, bias, scale)
    out, found = _empty(launch.q, cut)
    sparse = cut is not None
    held = (lse, cut) if sparse else (found, found)
    launch(
        _forward, launch.by_rows, (*launch.operands, *held, out),
        (*launch.strides, *out.stride()[:3]), SPARSE=sparse,
    )  # fmt: skip
    return out, found


@forward.register_fake
def _(q, k, v, bias, scale, lse=None, cut=None):
    return _empty(q, cut)


def _empty(q, cut):
    """Memory for the output, so that the block's transpose and flatten are views, and for ℓ."""
    b, h, n, d = q.shape
    out = q.new_empty(b, n, h, d).transpose(1, 2)
    return out, q.new_empty(b, h, n if cut is None else 0, dtype=torch.float32)
