"""Engines: how a block's attention is computed, with just the statistics asked for.

An engine that supports a request must agree with `PlainEngine`, which holds the whole map and
does what the definitions say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tokenred.attention.edits import AttentionEdit, sparsify
from tokenred.attention.need import Need
from tokenred.attention.stats import AttentionStats, stats_of_heads, stats_of_map
from tokenred.core.errors import ConfigError
from tokenred.core.state import TokenState

__all__ = ["Engine", "FusedEngine", "Heads", "PlainEngine", "Request", "attend", "pick_engine"]

# Statistics that do not look at the softmax, and so cost no map.
_WITHOUT_MAP = frozenset({"keys", "values", "logits_row"})


@dataclass(frozen=True, eq=False)
class Heads:
    """Queries, keys and values of one block, and what its output projection needs again.

    Attributes:
        q, k, v: ``(b, h, N, d)``, after q/k-norm.
        scale: factor on the logits, 1/√d as a rule.
        dropout: attention dropout, 0 outside training.
        carry: tensors that the block hands to itself (gates, a parallel MLP's input).
    """

    q: Float[Tensor, "b h N d"]
    k: Float[Tensor, "b h N d"]
    v: Float[Tensor, "b h N d"]
    scale: float
    dropout: float = 0.0
    carry: tuple[Tensor, ...] = ()


@dataclass(frozen=True, eq=False)
class Request:
    """What a block's attention shall do beyond attending.

    Attributes:
        needs: statistics to return.
        key_bias: ``(b, N)``, added to the logits of each key (``log s``), or None.
        theta: share θ of entries kept after the softmax.
        reference: θ as the authors' program counts it.
        edits: further edits of the logits.
    """

    needs: tuple[Need, ...] = ()
    key_bias: Float[Tensor, "b N"] | None = None
    theta: float = 1.0
    reference: bool = False
    edits: tuple[AttentionEdit, ...] = ()

    @property
    def needs_map(self) -> bool:
        """Whether anything here looks at the softmax map itself."""
        return (
            self.theta < 1
            or bool(self.edits)
            or any(need.kind not in _WITHOUT_MAP for need in self.needs)
        )


class Engine(ABC):
    """One way to compute attention with statistics."""

    @abstractmethod
    def supports(self, heads: Heads, request: Request) -> bool:
        """Whether this engine can answer; decided from shapes, types and the request alone."""

    @abstractmethod
    def __call__(
        self, heads: Heads, request: Request, state: TokenState
    ) -> tuple[Float[Tensor, "b h N d"], AttentionStats]:
        """The attended values, and the statistics of ``request.needs``."""


class PlainEngine(Engine):
    """The map as a tensor: supports everything, and is what the other engines are tested by."""

    def supports(self, heads: Heads, request: Request) -> bool:
        return True

    def __call__(
        self, heads: Heads, request: Request, state: TokenState
    ) -> tuple[Float[Tensor, "b h N d"], AttentionStats]:
        logits = (heads.q * heads.scale) @ heads.k.transpose(-2, -1)
        if request.key_bias is not None:
            logits = logits + request.key_bias.to(logits.dtype)[:, None, None, :]
        for edit in request.edits:
            logits = edit(logits, state)
        attention = logits.softmax(dim=-1)
        if request.theta < 1:
            attention = sparsify(attention, request.theta, request.reference)
        found = stats_of_map(attention, request.needs, state.num_prefix, state.cls_index)
        found |= _head_stats(heads, request, state)
        dropped = F.dropout(attention, heads.dropout, heads.dropout > 0)
        return dropped @ heads.v, AttentionStats(found)


class FusedEngine(Engine):
    """PyTorch's fused attention, where nobody looks at the map."""

    def supports(self, heads: Heads, request: Request) -> bool:
        return not request.needs_map

    def __call__(
        self, heads: Heads, request: Request, state: TokenState
    ) -> tuple[Float[Tensor, "b h N d"], AttentionStats]:
        bias = request.key_bias
        mask = None if bias is None else bias.to(heads.q.dtype)[:, None, None, :]
        out = F.scaled_dot_product_attention(
            heads.q, heads.k, heads.v, attn_mask=mask, dropout_p=heads.dropout, scale=heads.scale
        )
        return out, AttentionStats(_head_stats(heads, request, state))


PLAIN = PlainEngine()
# Fastest first; the last one supports everything.
ENGINES: tuple[Engine, ...] = (FusedEngine(), PLAIN)


def pick_engine(name: str) -> tuple[Engine, ...]:
    """The engines to try, in order: ``"auto"`` or ``"plain"``.

    Raises:
        ConfigError: for another name.
    """
    if name not in ("auto", "plain"):
        raise ConfigError(f"engine must be 'auto' or 'plain', got {name!r}.")
    return ENGINES if name == "auto" else (PLAIN,)


def attend(
    heads: Heads, request: Request, state: TokenState, engines: tuple[Engine, ...] = ENGINES
) -> tuple[Float[Tensor, "b h N d"], AttentionStats]:
    """Attention by the first engine that supports the request."""
    for engine in engines:
        if engine.supports(heads, request):
            return engine(heads, request, state)
    return PLAIN(heads, request, state)


def _head_stats(heads: Heads, request: Request, state: TokenState) -> dict[Need, torch.Tensor]:
    return stats_of_heads(
        heads.q, heads.k, heads.v, heads.scale, request.needs, state.num_prefix, state.cls_index
    )
