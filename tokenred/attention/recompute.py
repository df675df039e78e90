"""Training with engines that have no backward: recompute the map, a few images at a time."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tokenred.attention.plain import PLAIN
from tokenred.attention.spec import QKV, Attended, AttentionSpec, Engine, wants_gradient
from tokenred.attention.stats import AttentionStats
from tokenred.core.capture import is_eager, replace
from tokenred.core.state import TokenState
from tokenred.core.tensors import full_precision

# Entries of the map that the backward holds at a time: as many as stay in a CPU's cache, or keep a
# GPU busy.
_ENTRIES, _ENTRIES_CPU = 1 << 26, 1 << 20


class Recomputed(Engine):
    """Makes an inference engine usable in training.

    The forward runs the engine and saves q, k, v and the bias, but no map. The backward computes
    what `PlainEngine` does, a few images at a time, and differentiates the output and all
    statistics. Gradients flow through the entries that θ's exact threshold keeps, even if
    ``threshold="fast"`` kept slightly more or fewer. There is no second derivative.

    Without gradients it is the engine itself. Compiled training is not supported.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __repr__(self) -> str:
        return f"Recomputed({self.engine!r})"

    def supports(self, qkv: QKV, spec: AttentionSpec) -> bool:
        if not wants_gradient(qkv, spec):
            return self.engine.supports(qkv, spec)
        if not is_eager() or qkv.dropout or len(spec.score_mods) > 0 or qkv.bias is not None:
            return False
        with torch.no_grad():
            return self.engine.supports(qkv, spec)

    def __call__(self, qkv: QKV, spec: AttentionSpec, state: TokenState) -> Attended:
        if not wants_gradient(qkv, spec):
            return self.engine(qkv, spec, state)
        asked = replace(spec, requires=spec.map_stats)
        call = _Call(self.engine, qkv.scale, asked, state)
        tensors = (qkv.q, qkv.k, qkv.v, spec.key_bias)
        out, *values = _Recompute.apply(call, *tensors)
        found = dict(zip(asked.requires, values, strict=True))
        return out, AttentionStats(found | qkv.stats(spec.requires, state))


class _Call(NamedTuple):
    """The inputs that are not differentiable tensors."""

    engine: Engine
    scale: float
    spec: AttentionSpec
    state: TokenState


class _Recompute(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, call: _Call, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, ...]:
        spec = replace(call.spec, key_bias=bias)
        out, stats = call.engine(QKV(q, k, v, call.scale), spec, call.state)
        ctx.save_for_backward(q, k, v, bias)
        ctx.set_materialize_grads(False)
        # The tokens themselves are not used again and need not be kept.
        nothing = call.state.x.new_empty(0), call.state.index.new_empty(0)
        state = replace(call.state, x=nothing[0], index=nothing[1], size=None, graph=None)
        ctx.call = call._replace(state=replace(state, memory={}))
        values = [stats[stat] for stat in spec.requires]
        ctx.mark_non_differentiable(
            *(v for n, v in zip(spec.requires, values, strict=True) if n.kind == "kept")
        )
        return (out, *values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, wanted = ctx.saved_tensors, ctx.needs_input_grad[1:]
        (b, h, n, _), device = inputs[0].shape, inputs[0].device
        step = max(1, (_ENTRIES_CPU if device.type == "cpu" else _ENTRIES) // (h * n * n))
        chunks = []
        with full_precision(device):
            for at in range(0, max(b, 1), step):
                images = slice(at, at + step)
                parts = [
                    None if t is None else t[images].detach().requires_grad_(want)
                    for t, want in zip(inputs, wanted, strict=True)
                ]
                arrived = [None if g is None else g[images] for g in given]
                chunks.append(_gradients(ctx.call, parts, arrived))
        found = iter(torch.cat(chunk) for chunk in zip(*chunks, strict=True))
        return (None, *(next(found) if want else None for want in wanted))


def _gradients(call: _Call, inputs: list[Any], arrived: list[Tensor | None]) -> tuple[Tensor, ...]:
    """The gradients of the inputs that require them, given those of the outputs."""
    targets = [t for t in inputs if t is not None and t.requires_grad]
    q, k, v, bias = inputs
    with torch.enable_grad():
        spec = replace(call.spec, key_bias=bias)
        out, stats = PLAIN(QKV(q, k, v, call.scale), spec, call.state)
        given = (out, *(stats[stat] for stat in spec.requires))
        pairs = [
            (output, gradient.to(output.dtype))
            for output, gradient in zip(given, arrived, strict=True)
            if gradient is not None and output.requires_grad
        ]
    if not pairs:
        return tuple(torch.zeros_like(t) for t in targets)
    outputs, gradients = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, targets, gradients, materialize_grads=True)
