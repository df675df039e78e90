# mypy: ignore-errors
"""The most similar tokens of each token, the best so far kept in registers: no ``n²`` in memory.

Similarity and position are one integer, so that there are no ties. Runs are bit-identical.
"""

import torch
import triton
import triton.language as tl

from tokenred.attention.triton.launch import on

__all__ = ["MOST_NEAR", "nearest"]

MOST_NEAR = 64
"""The most neighbours that fit in registers."""
# Tokens, tokens compared with at a time, channels at a time.
NEAREST = {"ROWS": 32, "COLS": 32, "DEEP": 32}
# Below the key of any similarity; the places of the best begin here, all different.
NONE = tl.constexpr(-(1 << 62) - (1 << 61))


@triton.jit(do_not_specialize=["N", "M"])
def _nearest(
    unit_ptr, near_ptr, N, M,
    WIDTH: tl.constexpr, PLACES: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    DEEP: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(N, ROWS)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    rows = tl.program_id(0) % tiles * ROWS + tl.arange(0, ROWS)
    unit_ptr += image * N * WIDTH
    places = tl.arange(0, PLACES)[None, :]
    # Places beyond M hold the largest of all, and so are never replaced.
    best = tl.where(places < M, NONE + 1 + places.to(tl.int64), -NONE)
    best = best + tl.zeros([ROWS, PLACES], tl.int64)
    for first in range(0, N, COLS):
        cols = first + tl.arange(0, COLS)
        similarity = tl.zeros([ROWS, COLS], tl.float32)
        for channel in range(0, WIDTH, DEEP):
            deep = channel + tl.arange(0, DEEP)
            inside = (deep < WIDTH)[None, :]
            own = tl.load(unit_ptr + rows[:, None] * WIDTH + deep[None, :],
                          mask=(rows < N)[:, None] & inside, other=0.0)  # fmt: skip
            other = tl.load(unit_ptr + cols[:, None] * WIDTH + deep[None, :],
                            mask=(cols < N)[:, None] & inside, other=0.0)  # fmt: skip
            similarity = tl.dot(own, tl.trans(other), similarity, input_precision="tf32x3")
        # The bits of a float32 as an integer of the same order; + 0.0 makes −0 equal to 0.
        bits = (similarity + 0.0).to(tl.int32, bitcast=True)
        bits ^= (bits >> 31) & 0x7FFFFFFF
        key = (bits.to(tl.int64) << 32) + (N - 1 - cols)[None, :]
        key = tl.where((cols < N)[None, :] & (cols[None, :] != rows[:, None]), key, NONE)
        top, least = tl.max(key, 1), tl.min(best, 1)
        while tl.max((top > least).to(tl.int32), 0) > 0:
            worst = (best == least[:, None]) & (top > least)[:, None]
            best = tl.where(worst, top[:, None], best)
            key = tl.where(key == top[:, None], NONE, key)
            top, least = tl.max(key, 1), tl.min(best, 1)
    best = tl.where(places < M, best, NONE)
    near_ptr += (image * N + rows) * M
    for place in range(M):
        top = tl.max(best, 1)
        tl.store(near_ptr + place, N - 1 - (top & 0xFFFFFFFF), mask=rows < N)
        best = tl.where(best == top[:, None], NONE, best)


@torch.library.custom_op(
    "tokenred::nearest", mutates_args=(), schema="(Tensor unit, int m) -> Tensor"
)
def nearest(unit, m):
    """The m most similar other tokens of each token, the most similar first.

    Args:
        unit: ``(b, n, c)`` tokens of unit norm in float32, n > m.
        m: neighbours, at most `MOST_NEAR`.

    Returns:
        Positions ``(b, n, m)``; ties go to the lower one.
    """
    unit = unit.contiguous()
    b, n, width = unit.shape
    near = _empty(unit, m)
    with on(unit.device):
        _nearest[(max(1, b * -(-n // NEAREST["ROWS"])),)](
            unit, near, n, m, WIDTH=width, PLACES=triton.next_power_of_2(m), **NEAREST,
            num_warps=4, num_stages=1,
        )  # fmt: skip
    return near


@nearest.register_fake
def _empty(unit, m):
    return unit.new_empty(*unit.shape[:2], m, dtype=torch.int64)
