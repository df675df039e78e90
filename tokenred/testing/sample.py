"""One example: tokens between two blocks, and the queries, keys and values of a block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Int
from torch import Tensor

from tokenred.attention import (
    QKV,
    AttentionSpec,
    AttentionStat,
    AttentionStats,
    PlainEngine,
    size_bias,
)
from tokenred.core.info import BlockInfo, ModelInfo
from tokenred.core.state import Selection, TokenState

DEPTH = 12
T = TypeVar("T")


def model_info(
    width: int,
    grid: tuple[int, int],
    num_heads: int = 1,
    head_dim: int | None = None,
    num_prefix: int = 1,
    cls_index: int | None = 0,
) -> ModelInfo:
    """Facts about a model that does not exist, for checking and building parts."""
    return ModelInfo(
        name="a model drawn at random",
        width=width,
        num_heads=num_heads,
        head_dim=width if head_dim is None else head_dim,
        num_prefix=num_prefix,
        cls_index=cls_index,
        grid=grid,
        num_patches=grid[0] * grid[1],
        blocks=(BlockInfo(4 * width * width, 2 * width, 8 * width * width),) * DEPTH,
    )


@dataclass(frozen=True, eq=False)
class Sample:
    """A token state with queries, keys and values, so that any statistic can be computed.

    Attributes:
        state: the tokens.
        qkv: queries, keys and values of the same tokens.
        label: how it was drawn, for messages.
        proportional: whether ``log s`` is added to the logits.
        theta: share θ of attention entries kept.
        exact: whether the arithmetic has no rounding, so that equal scores are exactly equal.
        selection: the kept and dropped tokens, for fusers.
        of_batch: the batch that this image was taken from, and its place there.
    """

    state: TokenState
    qkv: QKV
    label: str
    proportional: bool = False
    theta: float = 1.0
    exact: bool = False
    selection: Selection | None = None
    of_batch: tuple[Sample, int] | None = None
    _known: dict[tuple[AttentionStat, ...], AttentionStats] = field(
        default_factory=dict, init=False, repr=False
    )

    def __repr__(self) -> str:
        return self.label

    @property
    def images(self) -> int:
        """The number of images."""
        return self.state.x.shape[0]

    @property
    def info(self) -> ModelInfo:
        """A model that the tokens could come from."""
        (_, heads, _, width), state = self.qkv.q.shape, self.state
        return model_info(
            state.x.shape[2], state.grid, heads, width, state.num_prefix, state.cls_index
        )

    def attention(self, requires: Sequence[AttentionStat]) -> AttentionStats:
        """Only these statistics, computed by the plain engine."""
        asked = tuple(requires)
        if self.of_batch is not None:
            batch, i = self.of_batch
            if asked not in batch._known:
                batch._known[asked] = batch.attention(asked)
            return mapped(batch._known[asked], lambda value: value[i : i + 1])
        size = self.state.size if self.proportional else None
        bias = None if size is None else size_bias(size)
        spec = AttentionSpec(requires=asked, key_bias=bias, theta=self.theta)
        found = PlainEngine()(self.qkv, spec, self.state)[1]
        if not self.exact:
            return found
        # A coarse scale, because the last bits of a softmax would break ties by chance.
        coarse = {
            stat: value if stat.kind in ("keys", "values") else (value * 8).round() / 8
            for stat, value in found.values.items()
        }
        return AttentionStats(coarse)

    def alone(self, i: int) -> Sample:
        """Image i as a batch of 1, with exactly the numbers that it had in the batch."""
        return replace(image_of(self, i, self.images), of_batch=(self, i))

    def some_order(self) -> Int[Tensor, "b n"]:
        """A permutation of the image tokens, a different one in each image."""
        generator = torch.Generator().manual_seed(0)
        order = torch.rand(self.state.index.shape, generator=generator).argsort(dim=1)
        ascending = torch.arange(order.shape[1])
        unmoved = (order == ascending).all(dim=1, keepdim=True)
        return torch.where(unmoved, ascending.roll(1), order)

    def permuted(self, order: Int[Tensor, "b n"]) -> Sample:
        """The same image tokens in another order; index, size, attention and selection follow."""
        qkv = self.qkv.take(self.state.places(order))
        assert qkv is not None
        chosen = None if self.selection is None else relabelled(self.selection, order)
        return replace(self, state=self.state.take(order), qkv=qkv, selection=chosen)

    def on_a_line(self) -> Sample:
        """The same tokens, with a grid of a single row."""
        return replace(self, state=replace(self.state, grid=(1, self.state.num_patches)))


def relabelled(selection: Selection, order: Int[Tensor, "b n"]) -> Selection:
    """The same selection for tokens in another order."""
    now_at = order.argsort(dim=1)
    partner, score = selection.partner, selection.score
    return replace(
        selection,
        keep=now_at.gather(1, selection.keep),
        drop=now_at.gather(1, selection.drop),
        partner=None if partner is None else now_at.gather(1, partner),
        score=None if score is None else score.gather(1, order),
    )


def image_of(value: T, i: int, images: int) -> T:
    """The part of a value that belongs to image i, as a batch of 1; shared parts stay."""
    return mapped(value, lambda t: t[i : i + 1] if len(t) == images else t)


def mapped(value: T, change: Callable[[Tensor], Tensor]) -> T:
    """Apply ``change`` to every tensor in a value (in dataclasses, mappings and tuples)."""
    made: Any = value
    if isinstance(value, Tensor):
        made = change(value)
    elif is_dataclass(value) and not isinstance(value, type):
        held = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        made = replace(value, **mapped(held, change))
    elif isinstance(value, Mapping):
        made = {key: mapped(item, change) for key, item in value.items()}
    elif type(value) is tuple:
        made = tuple(mapped(item, change) for item in made)
    return cast(T, made)
