"""Engines: how a block's attention is computed, with just the statistics asked for.

An engine that supports a request must agree with `PlainEngine`, which holds the whole map and
does what the definitions say.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tokenred.attention.edits import kept_entries, sparsify
from tokenred.attention.kernels import TritonEngine
from tokenred.attention.recompute import Recomputed
from tokenred.attention.request import Engine, Heads, Request
from tokenred.attention.stats import AttentionStats, stats_of_map
from tokenred.attention.tiles import TiledEngine
from tokenred.attention.two_calls import TwoCallsEngine
from tokenred.core.errors import ConfigError
from tokenred.core.state import TokenState

__all__ = ["FusedEngine", "PlainEngine", "attend", "pick_engine"]


class PlainEngine(Engine):
    """The map as a tensor: supports everything, and is what the other engines are tested by."""

    def supports(self, heads: Heads, request: Request) -> bool:
        return True

    def __call__(
        self, heads: Heads, request: Request, state: TokenState
    ) -> tuple[Float[Tensor, "b h N d"], AttentionStats]:
        logits = (heads.q * heads.scale) @ heads.k.transpose(-2, -1)
        if heads.bias is not None:
            logits = logits + heads.bias.to(logits.dtype)
        if request.key_bias is not None:
            logits = logits + request.key_bias.to(logits.dtype)[:, None, None, :]
        for edit in request.edits:
            logits = edit(logits, state)
        attention = None
        for edit in request.edits:
            if attention is None:
                attention = edit.normalize(logits, state)
        if attention is None:
            attention = logits.softmax(dim=-1)
        if request.theta < 1:
            attention = sparsify(attention, request.theta, request.reference)
        found = stats_of_map(attention, request.needs, state.num_prefix, state.cls_index)
        found.update(heads.stats(request.needs, state))
        for need in request.needs:
            if need.kind == "kept":
                found[need] = attention.new_full(attention.shape[:2], _share(request, attention))
        if heads.drop is not None:
            dropped = heads.drop(attention)
        else:
            dropped = F.dropout(attention, heads.dropout, heads.dropout > 0)
        return dropped @ heads.v, AttentionStats(found)


def _share(request: Request, attention: Float[Tensor, "b h N N"]) -> float:
    n = attention.shape[-1]
    exact = kept_entries(n, request.theta, request.reference) / n**2
    return exact if request.theta < 1 else 1.0


class FusedEngine(Engine):
    """PyTorch's fused attention, where nobody looks at the map."""

    def supports(self, heads: Heads, request: Request) -> bool:
        return not request.needs_map

    def __call__(
        self, heads: Heads, request: Request, state: TokenState
    ) -> tuple[Float[Tensor, "b h N d"], AttentionStats]:
        bias = request.key_bias
        mask = None if bias is None else bias.to(heads.q.dtype)[:, None, None, :]
        if heads.bias is not None:
            pairs = heads.bias.to(heads.q.dtype)
            mask = pairs if mask is None else pairs + mask
        out = F.scaled_dot_product_attention(
            heads.q, heads.k, heads.v, attn_mask=mask, dropout_p=heads.dropout, scale=heads.scale
        )
        return out, AttentionStats(heads.stats(request.needs, state))


class _OnCuda(Engine):
    """An engine that is only worth its while on CUDA."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def supports(self, heads: Heads, request: Request) -> bool:
        return heads.q.is_cuda and self.engine.supports(heads, request)

    def __call__(
        self, heads: Heads, request: Request, state: TokenState
    ) -> tuple[Float[Tensor, "b h N d"], AttentionStats]:
        return self.engine(heads, request, state)


PLAIN = PlainEngine()
_FUSED, _TILED, _TWO_CALLS, _TRITON = FusedEngine(), TiledEngine(), TwoCallsEngine(), TritonEngine()
# To be tried in order; the last one supports everything.
_ENGINES: dict[str, tuple[Engine, ...]] = {
    "auto": (_FUSED, _TILED, _OnCuda(_TWO_CALLS), _OnCuda(Recomputed(_TWO_CALLS)), PLAIN),
    "plain": (PLAIN,),
    "tiled": (_FUSED, _TILED, Recomputed(_TILED), PLAIN),
    "two_calls": (_FUSED, _TWO_CALLS, Recomputed(_TWO_CALLS), PLAIN),
    "triton": (_FUSED, _TRITON, Recomputed(_TRITON), PLAIN),
}
ENGINES = _ENGINES["auto"]


def pick_engine(name: str) -> tuple[Engine, ...]:
    """The engines to try, in order.

    Args:
        name: ``"auto"`` for tiles on the CPU and two fused calls on CUDA; ``"plain"`` for the map
            as a tensor; ``"tiled"``, ``"two_calls"`` or ``"triton"`` for that engine wherever it
            can, in training too, and the plain one elsewhere.

    Raises:
        ConfigError: for another name.
    """
    if name not in _ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(_ENGINES)}, got {name!r}.")
    return _ENGINES[name]


def attend(
    heads: Heads, request: Request, state: TokenState, engines: tuple[Engine, ...] = ENGINES
) -> tuple[Float[Tensor, "b h N d"], AttentionStats]:
    """Attention by the first engine that supports the request."""
    for engine in engines if heads.drop is None else ():
        if engine.supports(heads, request):
            return engine(heads, request, state)
    return PLAIN(heads, request, state)
