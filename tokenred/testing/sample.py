"""One example: tokens on their way, and the queries, keys and values of the block they are in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

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
from tokenred.core.tensors import gather_tokens
from tokenred.graphs import Graph

__all__ = ["DEPTH", "Reduction", "Sample", "model_info"]

DEPTH = 12


def model_info(
    width: int,
    grid: tuple[int, int],
    num_heads: int = 1,
    head_dim: int | None = None,
    num_prefix: int = 1,
    cls_index: int | None = 0,
) -> ModelInfo:
    """A model that exists on paper only, for parts to be checked against and built for."""
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
    """A token state with queries, keys and values, so that any attention statistic is at hand.

    Attributes:
        state: the tokens.
        heads: queries, keys and values of the same tokens.
        label: how it was drawn, for messages.
        proportional: ``log s`` is added to the logits.
        theta: share θ of attention entries kept.
        exact: the arithmetic has no rounding, so equal scores are exactly equal.
        of_batch: the batch that this image was taken out of, and its place there.
    """

    state: TokenState
    heads: QKV
    label: str
    proportional: bool = False
    theta: float = 1.0
    exact: bool = False
    of_batch: tuple[Sample, int] | None = None
    _known: dict[tuple[AttentionStat, ...], AttentionStats] = field(
        default_factory=dict, init=False, repr=False
    )

    def __repr__(self) -> str:
        return self.label

    @property
    def images(self) -> int:
        """How many images it holds."""
        return self.state.x.shape[0]

    @property
    def info(self) -> ModelInfo:
        """A model that the tokens could come from."""
        _, heads, _, width = self.heads.q.shape
        state = self.state
        return model_info(
            state.x.shape[2], state.grid, heads, width, state.num_prefix, state.cls_index
        )

    def attention(self, requires: Sequence[AttentionStat]) -> AttentionStats:
        """The statistics asked for, and no others, by the engine that holds the map."""
        if self.of_batch is not None:
            batch, i = self.of_batch
            if (asked := tuple(requires)) not in batch._known:
                batch._known[asked] = batch.attention(asked)
            stats = batch._known[asked].values.items()
            return AttentionStats({stat: value[i : i + 1] for stat, value in stats})
        size = self.state.size if self.proportional else None
        spec = AttentionSpec(
            requires=tuple(requires),
            key_bias=None if size is None else size_bias(size),
            theta=self.theta,
        )
        found = PlainEngine()(self.heads, spec, self.state)[1]
        if not self.exact:
            return found
        # A coarse scale: the last bits of a softmax would break ties by chance.
        coarse = {
            stat: value if stat.kind in ("keys", "values") else (value * 8).round() / 8
            for stat, value in found.values.items()
        }
        return AttentionStats(coarse)

    def alone(self, i: int) -> Sample:
        """Image i as a batch of 1, with the very numbers that it had in the batch."""
        one, state = slice(i, i + 1), self.state
        graph = state.graph
        if graph is not None and graph.batch > 1:
            graph = Graph(
                graph.neighbours[one],
                graph.values[one],
                graph.weights[one],
                graph.grid,
                graph.directed,
            )
        single = replace(
            state,
            x=state.x[one],
            index=state.index[one],
            size=None if state.size is None else state.size[one],
            graph=graph,
            memory={key: value[one] for key, value in state.memory.items()},
        )
        q, k, v = (t[one] for t in (self.heads.q, self.heads.k, self.heads.v))
        return replace(
            self, state=single, heads=replace(self.heads, q=q, k=k, v=v), of_batch=(self, i)
        )

    def some_order(self) -> Int[Tensor, "b n"]:
        """A permutation of the image tokens, another one in each image."""
        generator = torch.Generator().manual_seed(0)
        order = torch.rand(self.state.index.shape, generator=generator).argsort(dim=1)
        ascending = torch.arange(order.shape[1])
        unmoved = (order == ascending).all(dim=1, keepdim=True)
        return torch.where(unmoved, ascending.roll(1), order)

    def permuted(self, order: Int[Tensor, "b n"]) -> Sample:
        """The same image tokens in another order; `index`, size and attention follow."""
        p = self.state.num_prefix
        everyone = torch.cat((torch.arange(p).expand(order.shape[0], -1), order + p), dim=1)
        size = self.state.size
        state = replace(
            self.state,
            x=gather_tokens(self.state.x, everyone),
            index=self.state.index.gather(1, order),
            size=None if size is None else size.gather(1, everyone),
        )
        at = everyone[:, None, :, None].expand_as(self.heads.q)
        q, k, v = (t.gather(2, at) for t in (self.heads.q, self.heads.k, self.heads.v))
        return replace(self, state=state, heads=replace(self.heads, q=q, k=k, v=v))

    def on_a_line(self) -> Sample:
        """The same tokens, their grid called a single row."""
        return replace(self, state=replace(self.state, grid=(1, self.state.num_patches)))


@dataclass(frozen=True, eq=False)
class Reduction:
    """A sample and a selection of its tokens.

    Attributes:
        sample: the tokens.
        selection: what stays and goes.
        label: how the selection was drawn.
    """

    sample: Sample
    selection: Selection
    label: str

    def __repr__(self) -> str:
        return f"{self.sample!r}, {self.label}"

    @property
    def images(self) -> int:
        """How many images it holds."""
        return self.sample.images

    def alone(self, i: int) -> Reduction:
        """Image i as a batch of 1."""
        chosen = _each(self.selection, lambda values: values[i : i + 1])
        return Reduction(self.sample.alone(i), chosen, self.label)

    def some_order(self) -> Int[Tensor, "b n"]:
        """A permutation of the image tokens, another one in each image."""
        return self.sample.some_order()

    def permuted(self, order: Int[Tensor, "b n"]) -> Reduction:
        """The same tokens in another order, the selection pointing at them where they are now."""
        now_at = order.argsort(dim=1)
        chosen = _each(self.selection, lambda places: now_at.gather(1, places), score=False)
        score = self.selection.score
        score = None if score is None else score.gather(1, order)
        return Reduction(self.sample.permuted(order), replace(chosen, score=score), self.label)

    def on_a_line(self) -> Reduction:
        """The same tokens, their grid called a single row."""
        return replace(self, sample=self.sample.on_a_line())


def _each(
    selection: Selection, change: Callable[[Tensor], Tensor], *, score: bool = True
) -> Selection:
    partner, scores = selection.partner, selection.score if score else None
    return Selection(
        keep=change(selection.keep),
        drop=change(selection.drop),
        partner=None if partner is None else change(partner),
        score=None if scores is None else change(scores),
    )
