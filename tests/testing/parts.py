"""Sound parts of each kind, some of which are made faulty by what they are given."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.graphs import Graph, GraphBuilder
from tokenred.strategies.base import Fuser, Scorer, Selector
from tokenred.strategies.schedule import Schedule, ScheduleContext
from tokenred.strategies.transport import Transport

DIAGONAL, CLS = AttentionStat.diagonal(), AttentionStat.row("cls")
RIGID = Traits(equivariant=False)


def length(state: TokenState, attention: AttentionStats | None = None) -> Tensor:
    return state.image.float().abs().amax(dim=-1)


class Score(Scorer):
    of: Any = length
    stats: Any = ()

    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        return self.stats

    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return self.of(state, attention)


class Dice(Score):
    traits: ClassVar[Traits] = Traits(deterministic=False, equivariant=False, needs_grid=True)


class Batchwise(Score):
    traits: ClassVar[Traits] = Traits(independent=False)


class Weighted(Score):
    def build(self, info: ModelInfo) -> nn.Module:
        return nn.Linear(info.width, 1)

    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return self._called(state.image)[..., 0]


def split(order: Tensor, count: int, **more: Tensor) -> Selection:
    kept = order.shape[1] - count
    return Selection(order[:, :kept], order[:, kept:], **more)


def best(state: TokenState, count: int, of: Callable[..., Tensor] = length) -> Selection:
    score = of(state)
    return split(score.sort(dim=1, descending=True, stable=True).indices, count, score=score)


class Choice(Selector):
    of: Any = best
    most: int = -1  # what may go, of all tokens

    def limit(self, tokens: int) -> int:
        return max(0, tokens + self.most)

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        return self.of(state, count)


class ByPlace(Choice):
    traits: ClassVar[Traits] = RIGID


def bright(state: TokenState, alive: Tensor) -> Tensor:
    """What is above the mean, and the highest."""
    light = torch.where(alive, state.image.double().sum(dim=-1), -torch.inf)
    mean = torch.where(alive, light, 0).sum(1) / alive.sum(1).clamp_min(1)
    return ((light > mean[:, None]) | (light == light.amax(dim=1, keepdim=True))) & alive


class Adaptive(Selector):
    of: Any = bright
    change: Any = lambda chosen: chosen

    def adaptive(self, layer: int, depth: int) -> bool:
        return layer > 5

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        size = state.image_size
        alive = torch.ones_like(state.index, dtype=torch.bool) if size is None else size > 0
        flags = self.of(state, alive)
        order = flags.long().sort(dim=1, descending=True, stable=True).indices
        kept = flags.sum(dim=1)
        most, back = int(kept.max()), order.flip(1)
        living = torch.arange(most) < kept[:, None]
        gone = (alive & ~flags).gather(1, back)
        return self.change(Selection(order[:, :most], back, alive=living, gone=gone))


def carry(state: TokenState, selection: Selection, **weights: Any) -> Transport:
    return Transport(selection.keep, selection.drop, **weights)


class Carried(Fuser):
    of: Any = carry

    def transport(self, state: Any, selection: Any, graph: Any, attention: Any) -> Transport:
        return self.of(state, selection)


class Forgetful(Carried):
    traits: ClassVar[Traits] = Traits(conserves_size=True)


class Spoiled(Fuser):
    spoil: Any = lambda before, after: after

    def __call__(self, state: Any, selection: Any, graph: Any, attention: Any) -> TokenState:
        return self.spoil(state, carry(state, selection).apply(state))


class TwoFold(Transport):
    def matrix(self, tokens: int) -> Tensor:
        return super().matrix(tokens) * 2


def with_image(after: TokenState, image: Tensor) -> TokenState:
    return replace(after, x=torch.cat((after.prefix, image), dim=1))


def everyone(edges: Tensor, x0: Tensor, grid: tuple[int, int]) -> Tensor:
    return edges


class Neighbours(GraphBuilder):
    edges: Any = everyone
    spoil: Any = lambda graph: graph

    def __call__(self, x0: Tensor, grid: tuple[int, int]) -> Graph | None:
        n = x0.shape[1]
        adjacency = (~torch.eye(n, dtype=torch.bool)).expand(len(x0), n, n)
        return self.spoil(Graph.from_dense(self.edges(adjacency, x0, grid), grid))


class Rows(Neighbours):
    traits: ClassVar[Traits] = RIGID


class Counts(Schedule):
    of: Any = lambda context: (0,) * context.depth

    def resolve(self, context: ScheduleContext) -> tuple[int, ...]:
        return self.of(context)


class PerBlock(Schedule):
    of: Any = lambda tokens: 0

    def count(self, layer: int, tokens: int, context: ScheduleContext) -> int:
        return self.of(tokens)
