"""Attention with statistics from two calls of PyTorch's fused attention, on any device.

The first call gives the output and ``ℓ_j``, the log-sum-exp of each query's logits. A single entry
of the map is then ``A_ji = exp(q_j·k_i·scale + log s_i − ℓ_j)``. The column sums are also a
log-sum-exp, of the transposed attention with ``−ℓ_j`` as key bias:
``Σ_j A_ji = exp(LSE_j(k_i·q_j·scale − ℓ_j) + log s_i)``.

A key bias is folded into extra columns: ones in q, the bias in k. A mask would be read once per
query, and its rows would have to be aligned.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tokenred.attention.plain import PLAIN
from tokenred.attention.spec import QKV, Attended, AttentionSpec, Engine, is_modern, without_map
from tokenred.attention.stats import AttentionStat, AttentionStats, over_heads, stats_of_entries
from tokenred.core.capture import is_transformed, replace
from tokenred.core.state import TokenState
from tokenred.core.tensors import at_least_fp32

# Columns per bias: one with 8 or 11 bits would be too coarse, their sum has 22 or more.
_COLUMNS = {torch.float64: 1, torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}
# Replaces −∞, whose remainder after rounding would be NaN; its exponential is 0. The largest
# float16 is 65504.
_DEAD = {torch.float16: -6e4}
_ELSE_DEAD = -1e30
# Bytes per entry of the map if θ < 1, and the number of entries below which a chunk is small
# anyway.
_BYTES, _ENTRIES = 16, 1 << 22


class TwoCallsEngine(Engine):
    """Two fused calls and no map; with θ < 1 the map of a few images or heads at a time.

    For inference on the CPU and on CUDA, also compiled. Other engines handle gradients, dropout, a
    bias on pairs, score mods, the whole map, and export: the fused calls that return ``ℓ`` are
    specific to PyTorch, and no other runtime has them.

    Statistics are at least float32. θ's threshold is always exact.

    Args:
        devices: the supported devices.
    """

    def __init__(self, devices: tuple[str, ...] = ("cpu", "cuda")) -> None:
        self.devices = devices

    def supports(self, qkv: QKV, spec: AttentionSpec) -> bool:
        q, device = qkv.q, qkv.q.device
        return (
            device.type in self.devices
            and without_map(qkv, spec, _COLUMNS)
            and not (device.type == "cuda" and q.dtype == torch.float64)
            and (q.dtype != torch.bfloat16 or is_modern(device))
            and q.shape == qkv.v.shape
            and qkv.scale > 0
            and qkv.bias is None
            and not is_transformed()
        )

    def __call__(self, qkv: QKV, spec: AttentionSpec, state: TokenState) -> Attended:
        if spec.theta < 1:
            return _by_chunks(qkv, spec, state)
        q, p, scale = qkv.q, state.num_prefix, qkv.scale
        keys, bias = qkv.k[:, :, p:], spec.key_bias
        bias = None if bias is None else bias.to(at_least_fp32(q.dtype))[:, None]
        offset = None if bias is None else bias[..., p:]
        out, lse = _attention(q, qkv.k, qkv.v, bias, scale)

        def exp(logit: Float[Tensor, "b h n"]) -> Float[Tensor, "b h n"]:
            return (logit if offset is None else logit + offset).exp()

        def entries(
            queries: Float[Tensor, "b h #n d"], their_lse: Float[Tensor, "b h #n"]
        ) -> Float[Tensor, "b h n"]:
            # As a sum of fp32 products of low-precision numbers, which need no copies in fp32.
            dot = torch.addcmul(lse.new_zeros(1, 1, 1, 1), queries, keys).sum(dim=-1)
            return exp(dot * scale - their_lse)

        found = qkv.stats(spec.requires, state) | stats_of_entries(
            spec.map_stats,
            state,
            row=lambda row: entries(q[:, :, row : row + 1], lse[..., row : row + 1]),
            diagonal=lambda: entries(q[:, :, p:], lse[..., p:]),
            # Only the log-sum-exp is needed, so the values can be anything; use the narrowest.
            column_sum=lambda: exp(_attention(keys, q, None, -lse, scale)[1]),
            kept=lambda: lse.new_ones(lse.shape[:2]),
        )
        return out, AttentionStats(found)


def _attention(
    q: Float[Tensor, "b h m d"],
    k: Float[Tensor, "b h N d"],
    v: Float[Tensor, "b h N d"] | None,
    bias: Float[Tensor, "b #h N"] | None,
    scale: float,
) -> tuple[Float[Tensor, "b h m w"], Float[Tensor, "b h m"]]:
    """Fused attention with a key bias, and the log-sum-exp of each query's logits.

    Args:
        v: the values, or None if only the log-sum-exp is needed.
    """
    width, queries = q.shape[-1], q.shape[2]
    if bias is not None:
        q, k = _fold(q, k, bias, scale)
    if q.device.type == "cpu":
        values = k if v is None else _widen(v, k.shape[-1])
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, values, scale=scale
        )
        return out[..., :width], lse
    q, k = _aligned(q), _aligned(k)
    if _has_flash(q):
        values = k if v is None else _widen(v, k.shape[-1])
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention(q, k, values, scale=scale)[:2]
    else:
        values = k[..., :8] if v is None else _aligned(v)
        out, lse = torch.ops.aten._scaled_dot_product_efficient_attention(
            q, k, values, None, True, scale=scale
        )[:2]
    # The log-sum-exp may be padded to whole blocks of queries.
    return out[..., :width], lse[..., :queries]


def _fold(
    q: Float[Tensor, "b h m d"],
    k: Float[Tensor, "b h N d"],
    bias: Float[Tensor, "b #h N"],
    scale: float,
) -> tuple[Float[Tensor, "b h m w"], Float[Tensor, "b h N w"]]:
    """``(q'·k')·scale = q·k·scale + bias``, with the bias split over low-precision columns."""
    count, width = _COLUMNS[q.dtype], q.shape[-1]
    # A power of two near 1/scale, so that the columns are about as large as the bias.
    unit = 2.0 ** round(-math.log2(scale))
    rest = (bias / (scale * unit)).clamp(min=_DEAD.get(q.dtype, _ELSE_DEAD))
    columns = []
    for _ in range(count):
        columns.append(rest.to(q.dtype))
        rest = rest - columns[-1].to(rest.dtype)
    folded = torch.stack(columns, dim=-1).expand(*k.shape[:3], count)
    ones = q.new_full((1, 1, 1, 1), unit).expand(*q.shape[:3], count)
    # In one copy, up to the width that CUDA needs.
    rest = q.new_zeros(1, 1, 1, -(width + count) % 8 if q.is_cuda else 0)
    return (
        torch.cat((q, ones, rest.expand(*q.shape[:3], -1)), dim=-1),
        torch.cat((k, folded, rest.expand(*k.shape[:3], -1)), dim=-1),
    )


def _aligned(x: Float[Tensor, "b h N d"]) -> Float[Tensor, "b h N w"]:
    """Padded to a multiple of 8, as CUDA's fused attention requires."""
    return _widen(x, -(-x.shape[-1] // 8) * 8)


def _widen(x: Float[Tensor, "b h N d"], width: int) -> Float[Tensor, "b h N w"]:
    return x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1]))


def _has_flash(q: Tensor) -> bool:
    half = q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] <= 256
    return half and is_modern(q.device)


def _by_chunks(qkv: QKV, spec: AttentionSpec, state: TokenState) -> Attended:
    """With θ < 1: whole maps, for as many images or heads at a time as fit in the MLP's memory."""
    b, h, n, _ = qkv.q.shape
    hidden = 4 * qkv.q.numel() * qkv.q.element_size()
    maps = max(1, max(hidden // _BYTES, _ENTRIES) // (n * n))
    images = max(1, maps // h)
    group = max(g for g in range(1, h + 1) if h % g == 0 and g <= maps)
    chunks = []
    for image in range(0, max(1, b), images):
        at = slice(image, image + images)
        bias = None if spec.key_bias is None else spec.key_bias[at]
        asked = replace(spec, requires=spec.map_stats, key_bias=bias)
        parts = []
        for head in range(0, h, group):
            q, k, v = (t[at, head : head + group] for t in (qkv.q, qkv.k, qkv.v))
            parts.append(PLAIN(replace(qkv, q=q, k=k, v=v), asked, state))
        chunks.append(_joined(parts, asked.requires))
    outs, stats = zip(*chunks, strict=True)
    found = {stat: torch.cat([one[stat] for one in stats]) for stat in spec.map_stats}
    return torch.cat(outs), AttentionStats(found | qkv.stats(spec.requires, state))


def _joined(
    parts: list[tuple[Tensor, AttentionStats]], requires: tuple[AttentionStat, ...]
) -> tuple[Tensor, AttentionStats]:
    """Join groups of heads of equal size."""
    if len(parts) == 1:
        return parts[0]
    outs, stats = zip(*parts, strict=True)
    found = {}
    for stat in requires:
        values = [one[stat] for one in stats]
        each = torch.cat(values, dim=1) if stat.kind == "kept" else torch.stack(values, dim=1)
        found[stat] = each if stat.kind == "kept" else over_heads(each, stat.aggregate)
    return torch.cat(outs, dim=1), AttentionStats(found)
