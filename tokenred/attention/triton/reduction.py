# mypy: ignore-errors
"""A reduction in two kernels: one ranks tokens and lists those that stay and go, one moves them.

Ranks are counted, so that ties go by position; sums have a fixed order. Runs are bit-identical.
"""

import torch
import triton
import triton.language as tl

from tokenred.attention.triton.launch import INTERPRETED, on

__all__ = ["fuse", "select"]

# Tokens ranked at a time, and compared with; remaining tokens, channels and removed tokens.
SELECT = {"RANKED": 128, "OTHERS": 32}
FUSE = {"ROWS": 32, "COLS": 64, "GONE": 16}


@triton.jit
def _scores(pointer, at, N):
    """Scores in float32; NaN counts as the highest."""
    score = tl.load(pointer + at, mask=at < N, other=float("-inf")).to(tl.float32)
    return tl.where(score == score, score, float("inf"))


@triton.jit(do_not_specialize=["N", "gone", "targets", "even"])
def _select(
    score_ptr, partner_ptr, keep_ptr, drop_ptr, into_ptr, slot_ptr, score_image, partner_image,
    N, gone, targets, even, MATCHED: tl.constexpr, RANKED: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    image, left, found = tl.program_id(0).to(tl.int64), N - gone, 0
    score_ptr += image * score_image
    partner_ptr += image * partner_image
    keep_ptr += image * (left + targets)
    for first in range(0, N, RANKED):
        rows = first + tl.arange(0, RANKED)
        own, rank = _scores(score_ptr, rows, N), tl.zeros([RANKED], tl.int32)
        for start in range(0, N, OTHERS):
            others = start + tl.arange(0, OTHERS)
            score = _scores(score_ptr, others, N)[None, :]
            tied = (score == own[:, None]) & (others[None, :] < rows[:, None])
            before = ((score > own[:, None]) | tied) & (others < N)[None, :]
            rank += tl.sum(before.to(tl.int32), 1)
        token = rows.to(tl.int64)
        if MATCHED:  # the highest go, best first
            goes, token = (rows < N) & (rank < gone), 2 * token + even
        else:
            goes, rank = (rows < N) & (rank >= left), rank - left
        stays = ((rows < N) & ~goes).to(tl.int32)
        tl.store(keep_ptr + found + tl.cumsum(stays, 0) - 1, token, mask=stays > 0)
        found += tl.sum(stays, 0)
        place = image * gone + rank
        tl.store(drop_ptr + place, token, mask=goes)
        if MATCHED:
            partner = tl.load(partner_ptr + rows, mask=goes, other=0)
            tl.store(into_ptr + place, 2 * partner + 1 - even, mask=goes)
            tl.store(slot_ptr + place, partner + left, mask=goes)
    for first in range(0, targets, RANKED):
        rows = first + tl.arange(0, RANKED)
        tl.store(keep_ptr + left + rows, (2 * rows + 1 - even).to(tl.int64), mask=rows < targets)


@torch.library.custom_op(
    "tokenred::select",
    mutates_args=(),
    schema="(Tensor score, Tensor? partner, int gone, int targets, int even) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
)
def select(score, partner, gone, targets, even):
    """The tokens that stay, ascending, and those that go; ties go by position.

    Args:
        score: ``(b, n)``. The lowest go, in descending order; with partners the highest.
        partner: None, or, for the even or odd tokens that the scores are of, which of the others
            each would join, ``(b, n)``.
        gone: how many go.
        targets: the number of the others, which stay behind the rest.
        even: with partners, the position of the first scored token, 0 or 1.

    Returns:
        ``keep (b, n − gone + targets)`` and ``drop (b, gone)``; with partners also theirs and
        their places in ``keep``, ``(b, gone)``, otherwise empty.
    """
    score = score if score.stride(-1) == 1 else score.contiguous()
    held = score if partner is None else partner.contiguous()
    outputs = _selected(score, partner, gone, targets, even)
    with on(score.device):
        _select[(max(1, score.shape[0]),)](
            score, held, *outputs, score.stride(0), held.stride(0), score.shape[1], gone, targets,
            even, MATCHED=partner is not None, **SELECT, num_warps=4,
        )  # fmt: skip
    return outputs


@select.register_fake
def _selected(score, partner, gone, targets, even):
    b, n = score.shape
    matched = 0 if partner is None else gone
    sizes = (n - gone + targets, gone, matched, matched)
    return tuple(score.new_empty(b, size, dtype=torch.int64) for size in sizes)


@triton.jit(do_not_specialize=["left", "kept", "gone", "prefix", "moving"])
def _fuse(
    x_ptr, index_ptr, size_ptr, keep_ptr, drop_ptr, move_ptr, share_ptr, stay_ptr, slot_ptr,
    weight_ptr, out_ptr, place_ptr, sum_ptr, x_image, x_row, index_image, size_image, keep_image,
    drop_image, move_image, move_row, move_col, stay_image, slot_image, weight_image,
    left, kept, gone, prefix, moving, epsilon,
    WIDTH: tl.constexpr, MOVES: tl.constexpr, MEAN: tl.constexpr, SIZED: tl.constexpr,
    STAYS: tl.constexpr, UPCAST: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, GONE: tl.constexpr,
):  # fmt: skip
    across, down = tl.cdiv(WIDTH, COLS), tl.cdiv(left, ROWS)
    image = (tl.program_id(0) // (down * across)).to(tl.int64)
    block = tl.program_id(0) % (down * across)
    top, cols = block // across * ROWS, block % across * COLS + tl.arange(0, COLS)
    rows = top + tl.arange(0, ROWS)
    x_ptr += image * x_image + cols[None, :]
    size_ptr += image * size_image
    weight_ptr += image * weight_image
    target, inside = rows - prefix, (rows < left)[:, None] & (cols < WIDTH)[None, :]
    own, old = (target >= 0) & (target < kept), target < kept
    at = tl.load(keep_ptr + image * keep_image + target, mask=own, other=0)
    source = tl.where(own, at + prefix, rows)
    x = tl.load(x_ptr + source[:, None] * x_row, mask=inside & old[:, None], other=0.0)
    x = x.to(tl.float32)
    out, total, size = x, tl.where(own, 0.0, 1.0), tl.zeros([ROWS], tl.float32)
    if SIZED:
        size = tl.load(size_ptr + source, mask=(rows < left) & old, other=0.0)
    if MEAN:
        total += tl.load(weight_ptr + at, mask=own, other=0.0).to(tl.float32)
        total += tl.where(own, epsilon, 0.0)
        out = x * (total - tl.where(own, epsilon, 0.0))[:, None]
    if STAYS:
        stay = tl.load(stay_ptr + image * stay_image + target, mask=own, other=1.0)
        out = x * stay.to(tl.float32)[:, None]
    if MOVES:
        # Only the last rows may receive anything.
        into = rows - (left - moving)
        for first in range(0, tl.where(top + ROWS > left - moving, gone, 0), GONE):
            each = first + tl.arange(0, GONE)
            there = each < gone
            removed = tl.load(drop_ptr + image * drop_image + each, mask=there, other=0)
            if MEAN:
                slot = tl.load(slot_ptr + image * slot_image + each, mask=there, other=-1)
                joins = (slot[None, :] == target[:, None]) & own[:, None]
                weight = tl.load(weight_ptr + removed, mask=there, other=0.0).to(tl.float32)
                share, move = tl.where(joins, 1.0, 0.0), tl.where(joins, weight[None, :], 0.0)
                total += tl.sum(move, 1)
            else:
                filled = ((into >= 0) & (rows < left))[:, None] & there[None, :]
                cell = image * move_image + into[:, None] * move_row + each[None, :] * move_col
                move = tl.load(move_ptr + cell, mask=filled, other=0.0).to(tl.float32)
                share = tl.load(share_ptr + cell, mask=filled, other=0.0).to(tl.float32)
            if SIZED:
                theirs = tl.load(size_ptr + removed + prefix, mask=there, other=0.0)
                size += tl.sum(share * theirs[None, :], 1)
            lost = tl.load(
                x_ptr + (removed + prefix)[:, None] * x_row,
                mask=there[:, None] & (cols < WIDTH)[None, :], other=0.0,
            )  # fmt: skip
            if UPCAST:
                lost = lost.to(tl.float32)
            out = tl.dot(move.to(lost.dtype), lost, out, input_precision="tf32x3")
    if MEAN:  # a token of weight 0 that receives nothing is unchanged
        out = tl.where((total == 0)[:, None], x, out / tl.where(total == 0, 1.0, total)[:, None])
    place = out_ptr + (image * left + rows)[:, None] * WIDTH + cols[None, :]
    tl.store(place, out.to(out_ptr.dtype.element_ty), mask=inside)
    if block % across == 0:
        index = tl.load(index_ptr + image * index_image + at, mask=own, other=-1)
        place_ptr += image * (left - prefix)
        tl.store(place_ptr + target, index, mask=(target >= 0) & (rows < left))
        if SIZED:
            tl.store(sum_ptr + image * left + rows, size, mask=rows < left)


@torch.library.custom_op(
    "tokenred::fuse",
    mutates_args=(),
    schema="(Tensor x, Tensor index, Tensor? size, Tensor keep, Tensor drop, int prefix, int extra,"
    " Tensor? move, Tensor? size_move, Tensor? stay, Tensor? slot, Tensor? weight, float epsilon)"
    " -> (Tensor, Tensor, Tensor)",
)
def fuse(x, index, size, keep, drop, prefix, extra, move, size_move, stay, slot, weight, epsilon):
    """What a `Transport` does to tokens, positions and sizes; or each group becomes its mean.

    Args:
        x: ``(b, N, c)``, the prefix first, which stays as it is.
        index, size: ``(b, N − prefix)``, and ``(b, N)`` or None.
        keep, drop: ``(b, k)`` and ``(b, P)``, among the image tokens.
        prefix, extra: numbers of prefix tokens and of new ones.
        move, size_move, stay: as in a `Transport`.
        slot: for means, the place in ``keep`` of the token that each one joins ``(b, P)``, or −1.
        weight: then the weights of the image tokens ``(b, N − prefix)``.
        epsilon: then added to each sum of weights.

    Returns:
        The same three for the remaining tokens; without sizes the last one is empty.
    """
    outputs = _fused(x, index, size, keep, drop, prefix, extra)
    if size_move is not None:
        move, size_move = move.contiguous(), size_move.to(move.dtype).contiguous()
    held = (x, index, size, keep, drop, move, size_move if size_move is not None else move, stay)
    # A pointer is required even if the kernel does not read it.
    held = [x if t is None else t for t in (*held, slot, weight)]
    held = [t if t.stride(-1) == 1 or t is held[5] else t.contiguous() for t in held]
    first = [t.stride(0) for t in held]
    rows, width = outputs[0].shape[1:]
    blocks = x.shape[0] * -(-rows // FUSE["ROWS"]) * -(-width // FUSE["COLS"])
    steps = held[5].stride()
    with on(x.device):
        _fuse[(blocks,)](
            *held, *outputs, first[0], held[0].stride(1), *first[1:5], *steps, first[7],
            *first[8:], rows, keep.shape[1], drop.shape[1], prefix,
            rows - prefix if move is None else move.shape[1], epsilon,
            WIDTH=width, MOVES=move is not None or slot is not None, MEAN=slot is not None,
            SIZED=size is not None, STAYS=stay is not None, UPCAST=INTERPRETED, **FUSE,
            num_warps=4, num_stages=1,
        )  # fmt: skip
    return outputs


@fuse.register_fake
def _(x, index, size, keep, drop, prefix, extra, *rest):
    return _fused(x, index, size, keep, drop, prefix, extra)


def _fused(x, index, size, keep, drop, prefix, extra):
    b, k = keep.shape
    rows = prefix + k + extra
    sums = x.new_empty(b, 0) if size is None else size.new_empty(b, rows)
    return x.new_empty(b, rows, x.shape[2]), index.new_empty(b, k + extra), sums
