# mypy: ignore-errors
"""Operations on a tile of the map, shared by all kernels.

Logits and probabilities are base-2 logarithms in float32: ``x = log2 A``. Every kernel computes
them with the same operations on tiles of the same shape, so that they are bit-identical, and an
entry counted by one kernel is kept by another.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
# Fixed point: steps per unit of log2, fine enough for every bit of a float32 A.
STEPS = tl.constexpr(1 << 23)
# Below 2^FLOOR a float32 is 0. In steps: the smallest entry, and a bound above the largest.
FLOOR = tl.constexpr(-150)
BOTTOM = tl.constexpr(-150 * (1 << 23))
TOP = tl.constexpr(1 << 23)


@triton.jit
def start_of(pointer, at, HEADS, stride_image, stride_head):
    """The offset of one image and head; 64 bits, because a batch may be large."""
    image, head = at // HEADS, at % HEADS
    return pointer + image.to(tl.int64) * stride_image + head.to(tl.int64) * stride_head


@triton.jit
def load_rows(pointer, rows, N, stride, WIDTH: tl.constexpr, PADDED: tl.constexpr,
              UPCAST: tl.constexpr):  # fmt: skip
    """``(rows, PADDED)``, zero beyond the tokens and beyond the width of a head."""
    across = tl.arange(0, PADDED)
    inside = (rows[:, None] < N) & (across[None, :] < WIDTH)
    tile = tl.load(pointer + rows[:, None] * stride + across[None, :], mask=inside, other=0.0)
    if UPCAST:  # the interpreter cannot multiply bfloat16
        tile = tile.to(tl.float32)
    return tile


@triton.jit
def load_bias(pointer, cols, N, HAS_BIAS: tl.constexpr):
    """The bias of the keys; −∞ beyond the tokens."""
    if HAS_BIAS:
        return tl.load(pointer + cols, mask=cols < N, other=float("-inf")) * LOG2E
    return tl.where(cols < N, 0.0, float("-inf"))


@triton.jit
def logits(q, k, bias, scale):
    """``(rows, cols)`` logits, with an explicit fma, so that no compiler decides."""
    return tl.fma(tl.dot(q, tl.trans(k), input_precision="tf32x3"), scale, bias[None, :])


@triton.jit
def load_lse(pointer, rows, N):
    """The log-sum-exp of the queries; +∞ beyond the tokens, where A should be 0."""
    return tl.load(pointer + rows, mask=rows < N, other=float("inf"))


@triton.jit
def fixed(x):
    """log2 A in steps: integers have the same order as A, and no rounding."""
    return (tl.maximum(x, FLOOR * 1.0) * STEPS).to(tl.int32)


@triton.jit
def kept(x, rows, cols, N, threshold, last):
    """Whether θ keeps an entry: above the threshold, or equal and not after the last position."""
    entry = fixed(x)
    place = rows[:, None] * N + cols[None, :]
    return (entry > threshold) | ((entry == threshold) & (place <= last))
