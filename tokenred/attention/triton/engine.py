"""The engine that uses Triton kernels."""

import importlib.util
import os

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.attention.score_mods import kept_entries, slack_entries
from tokenred.attention.spec import QKV, AttentionSpec, Engine, is_modern, without_map
from tokenred.attention.stats import AttentionStats, stats_of_entries, wanted_entries
from tokenred.attention.triton.launch import MOST_KEYS, WIDEST, padded
from tokenred.core.capture import is_eager, is_transformed
from tokenred.core.state import TokenState

__all__ = ["OnePassEngine", "TritonEngine", "reduces"]

_KEYS_BYTES = 1 << 16
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_INSTALLED = importlib.util.find_spec("triton") is not None
# Triton's interpreter runs the kernels on the CPU; it is switched on before Triton is imported.
_DEVICES = ("cuda", "cpu") if os.environ.get("TRITON_INTERPRET") == "1" else ("cuda",)


class TritonEngine(Engine):
    """Flash-style kernels with statistics: no map and no tile of it ever reaches memory.

    One kernel computes the output and ``ℓ``, the log-sum-exp of each query's logits. A second one,
    with one tile of keys per program, recomputes their logits and sums columns. With θ < 1 a third
    kernel counts entries until it finds the threshold, and the output is computed again from the
    kept entries. Sums have a fixed order, so runs are bit-identical.

    For inference on CUDA, also compiled. Other engines handle gradients, dropout, a bias on pairs,
    score mods, the whole map and export. Statistics are float32.

    Whether it is faster than `TwoCallsEngine` has not been measured, so it is never chosen
    automatically.
    """

    def supports(self, qkv: QKV, spec: AttentionSpec) -> bool:
        q = qkv.q
        return (
            _INSTALLED
            and q.device.type in _DEVICES
            and without_map(qkv, spec, _DTYPES)
            and q.shape == qkv.k.shape == qkv.v.shape
            and q.shape[-1] <= WIDEST
            and qkv.bias is None
            and not is_transformed()
            and is_modern(q.device)
        )

    def __call__(
        self, qkv: QKV, spec: AttentionSpec, state: TokenState
    ) -> tuple[Float[Tensor, "b h N d"], AttentionStats]:
        # Imported here: Triton is slow to import, and may be missing.
        from tokenred.attention.triton.forward import forward
        from tokenred.attention.triton.statistics import statistics
        from tokenred.attention.triton.threshold import threshold

        (b, h, n, _), scale = qkv.q.shape, qkv.scale
        bias = None if spec.key_bias is None else spec.key_bias.float()
        out, lse = forward(qkv.q, qkv.k, qkv.v, bias, scale)
        cut, share = None, lse.new_ones(b, h)
        kept = kept_entries(n, spec.theta, spec.reference) if spec.theta < 1 else n * n
        if kept < n * n:
            slack = slack_entries(n * n) if spec.threshold == "fast" else 0
            cut = threshold(qkv.q, qkv.k, bias, lse, scale, kept, slack)
            out, _ = forward(qkv.q, qkv.k, qkv.v, bias, scale, lse, cut)
            share = cut[..., 2].float() / (n * n)
        wanted = wanted_entries(spec.map_stats, state)
        columns = diagonal = first = lse  # not read in this case
        if wanted.rows or wanted.diagonal or wanted.column_sum:
            columns, diagonal, first = statistics(
                qkv.q, qkv.k, bias, lse, cut, scale,
                wanted.column_sum, wanted.diagonal, max(wanted.rows, default=-1) + 1,
            )  # fmt: skip
        p = state.num_prefix
        found = qkv.stats(spec.requires, state) | stats_of_entries(
            spec.map_stats,
            state,
            row=lambda row: first[:, :, row, p:],
            diagonal=lambda: diagonal[..., p:],
            column_sum=lambda: columns[..., p:],
            kept=lambda: share,
        )
        return out, AttentionStats(found)


def reduces(engines: tuple[Engine, ...], x: Tensor) -> bool:
    """Whether reductions of these tokens run in kernels too: inference with engines that have some.

    A compiler is given PyTorch's operations, which it fuses itself.
    """
    return (
        _INSTALLED
        and x.device.type in _DEVICES
        and x.dtype in _DTYPES
        and any(isinstance(engine, TritonEngine) for engine in engines)
        and not torch.is_grad_enabled()
        and is_eager()
        and is_modern(x.device)
    )


class OnePassEngine(TritonEngine):
    """One kernel for output and statistics, where a tile has all keys (up to 256).

    Gives the column sums, the diagonal and one row, without θ. What it leaves, `TritonEngine`
    takes. Whether it is faster than other engines has not been measured, so it is never chosen
    automatically.
    """

    def supports(self, qkv: QKV, spec: AttentionSpec) -> bool:
        n, d = qkv.q.shape[2:]
        rows = {stat.query for stat in spec.map_stats if stat.kind == "row"}
        return (
            n <= MOST_KEYS
            and spec.theta == 1
            and len(rows) <= 1
            # The keys of a tile, in shared memory beside its queries.
            and padded(n) * padded(d) * qkv.q.element_size() <= _KEYS_BYTES
            and super().supports(qkv, spec)
        )

    def __call__(
        self, qkv: QKV, spec: AttentionSpec, state: TokenState
    ) -> tuple[Float[Tensor, "b h N d"], AttentionStats]:
        from tokenred.attention.triton.one_pass import one_pass

        bias = None if spec.key_bias is None else spec.key_bias.float()
        wanted = wanted_entries(spec.map_stats, state)
        out, columns, diagonal, first = one_pass(
            qkv.q, qkv.k, qkv.v, bias, qkv.scale,
            wanted.column_sum, wanted.diagonal, next(iter(wanted.rows), -1),
        )  # fmt: skip
        p = state.num_prefix
        found = qkv.stats(spec.requires, state) | stats_of_entries(
            spec.map_stats,
            state,
            row=lambda row: first[..., p:],
            diagonal=lambda: diagonal[..., p:],
            column_sum=lambda: columns[..., p:].sum(dim=2),
            kept=lambda: columns.new_ones(out.shape[:2]),
        )
        return out, AttentionStats(found)
