"""The spec of a call, the contract of an engine, and the requirements of engines without a map."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.attention.score_mods import ScoreMod
from tokenred.attention.stats import AttentionStat, AttentionStats, over_heads, row_index
from tokenred.core.capture import replace
from tokenred.core.state import TokenState
from tokenred.core.tensors import autocast_dtype, product

# Statistics that do not depend on the softmax, and so need no map; and those that engines without
# a map provide.
_WITHOUT_MAP = frozenset({"keys", "values", "logits_row"})
_OF_ENTRIES = frozenset({"diagonal", "column_sum", "row", "kept"})


@dataclass(frozen=True, eq=False)
class QKV:
    """Queries, keys and values of one block, and data that its output projection needs.

    Attributes:
        q, k, v: ``(b, h, N, d)``, after q/k-norm.
        scale: factor on the logits, 1/√d by default.
        dropout: attention dropout, 0 outside training.
        carry: tensors that the block passes to itself (gates, a parallel MLP's input).
        bias: added to the logits of each pair of tokens (relative positions), or None.
        calls: calls of attention modules that started with these tensors and end with the output.
        drop: applies ``dropout`` and hooks on the map; needs the map as a tensor.
    """

    q: Float[Tensor, "b h N d"]
    k: Float[Tensor, "b h N d"]
    v: Float[Tensor, "b h N d"]
    scale: float
    dropout: float = 0.0
    carry: tuple[Tensor, ...] = ()
    bias: Float[Tensor, "#b h N N"] | None = None
    calls: tuple[Any, ...] = ()
    drop: Callable[[Tensor], Tensor] | None = None

    def stats(
        self, requires: tuple[AttentionStat, ...], state: TokenState
    ) -> dict[AttentionStat, Tensor]:
        """Those of the statistics that need no softmax: keys, values and rows of logits."""
        found: dict[AttentionStat, Tensor] = {}
        for stat in requires:
            if stat.kind == "keys":
                found[stat] = self.k
            elif stat.kind == "values":
                found[stat] = self.v
            elif stat.kind == "logits_row":
                row, keys = row_index(stat, state), self.k[:, :, state.num_prefix :]
                logits = product(self.q[:, :, row : row + 1], keys.transpose(-2, -1))
                found[stat] = over_heads(logits.squeeze(2) * self.scale, stat.aggregate)
        return found

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of queries, keys and values; None if they differ."""
        same = self.q.dtype == self.k.dtype == self.v.dtype
        return self.q.dtype if same else None

    def in_one_type(self) -> QKV:
        """Convert to one dtype: that of autocast if active, otherwise that of the values.

        Under autocast a norm of queries and keys leaves them in float32, while the values are
        bfloat16.
        """
        dtype = self.v.dtype
        if dtype != torch.float64:
            dtype = autocast_dtype(self.v.device) or dtype
        if self.q.dtype == self.k.dtype == self.v.dtype == dtype:
            return self
        return replace(self, q=self.q.to(dtype), k=self.k.to(dtype), v=self.v.to(dtype))

    def take(self, places: Int[Tensor, "b k"]) -> QKV | None:
        """The tensors of some tokens; None if the block's data cannot be split by token."""
        if self.carry:
            return None
        image = torch.arange(places.shape[0], device=places.device)[:, None]
        q, k, v = (
            t.transpose(1, 2)[image, places].transpose(1, 2) for t in (self.q, self.k, self.v)
        )
        bias = self.bias
        if bias is not None:
            bias = bias.expand(places.shape[0], -1, -1, -1).transpose(1, 3)
            bias = bias[image, places].transpose(1, 2)[image, places].permute(0, 3, 1, 2)
        return replace(self, q=q, k=k, v=v, bias=bias)


class Scratch:
    """Reusable buffers by name; fresh memory costs a page fault per page.

    Taking a name overwrites its previous content. Belongs to one forward, which drops it.
    """

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """A contiguous, uninitialised tensor of this shape, like ``like`` in dtype and device."""
        size, held = math.prod(shape), self._held.get(name)
        fits = held is not None and (held.dtype, held.device) == (like.dtype, like.device)
        if held is None or not fits or held.numel() < size:
            self._held[name] = held = like.new_empty(size)
        return held[:size].view(shape)


@dataclass(frozen=True, eq=False)
class AttentionSpec:
    """What a block's attention computes in addition to its output.

    Attributes:
        requires: statistics to return.
        key_bias: ``(b, N)``, added to the logits of each key (``log s``), or None.
        theta: share θ of entries kept after the softmax.
        threshold: how θ's threshold is found. ``"fast"`` lets an engine keep a share within
            `tokenred.attention.SLACK` of θ.
        reference: count entries for θ as in the authors' code.
        score_mods: applied in this order, after the key bias.
        scratch: buffers reused from block to block in one forward without gradients.
    """

    requires: tuple[AttentionStat, ...] = ()
    key_bias: Float[Tensor, "b N"] | None = None
    theta: float = 1.0
    threshold: str = "exact"
    reference: bool = False
    score_mods: tuple[ScoreMod, ...] = ()
    scratch: Scratch | None = None

    @property
    def map_stats(self) -> tuple[AttentionStat, ...]:
        """The statistics that look at the softmax map."""
        return tuple(stat for stat in self.requires if stat.kind not in _WITHOUT_MAP)

    @property
    def needs_map(self) -> bool:
        """Whether anything here needs the softmax map itself."""
        return self.theta < 1 or len(self.score_mods) > 0 or len(self.map_stats) > 0


Attended: TypeAlias = tuple[Float[Tensor, "b h N d"], AttentionStats]


class Engine(ABC):
    """One way to compute attention with statistics."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @abstractmethod
    def supports(self, qkv: QKV, spec: AttentionSpec) -> bool:
        """Whether this engine supports the call, decided only from shapes, dtypes and the spec."""

    @abstractmethod
    def __call__(self, qkv: QKV, spec: AttentionSpec, state: TokenState) -> Attended:
        """The attended values, and the statistics of ``spec.requires``."""


def wants_gradient(qkv: QKV, spec: AttentionSpec) -> bool:
    """Whether any input of the attention requires gradients."""
    tensors = (qkv.q, qkv.k, qkv.v, qkv.bias, spec.key_bias)
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def without_map(
    qkv: QKV, spec: AttentionSpec, dtypes: Collection[torch.dtype], also: str = ""
) -> bool:
    """Whether an engine without a map can run: inference, all inputs in one of these dtypes.

    ``also`` is a statistic that this engine provides besides sums and entries.
    """
    return (
        qkv.dtype in dtypes
        and qkv.dropout == 0
        and len(spec.score_mods) == 0
        and all(stat.kind in _OF_ENTRIES or stat.kind == also for stat in spec.map_stats)
        and not wants_gradient(qkv, spec)
    )


def is_modern(device: torch.device) -> bool:
    """Whether bfloat16 kernels exist: not on GPUs before compute capability 8.0."""
    return device.type != "cuda" or torch.cuda.get_device_properties(device).major >= 8
