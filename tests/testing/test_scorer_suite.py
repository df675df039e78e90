"""`check_scorer`: every scorer of the library passes, every planted fault is found and named."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.errors import UnknownNameError
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import TokenState
from tokenred.strategies.base import Scorer, scorers
from tokenred.testing import check_scorer

NAMES = [entry.name for entry in scorers if entry.source.startswith("tokenred.")]


class Norm(Scorer):
    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return state.image.float().norm(dim=-1)


class Transposed(Norm):
    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return super().__call__(state, attention).unsqueeze(-1)


class DividesByZero(Norm):
    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return 1 / super().__call__(state, attention)


class InPlace(Norm):
    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        state.x.mul_(2)
        return super().__call__(state, attention)


class EditsStatistic(Scorer):
    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        return (AttentionStat.diagonal(),)

    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return attention[AttentionStat.diagonal()].add_(1)


class Dice(Scorer):
    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return torch.rand(state.index.shape)


class OverTheBatch(Norm):
    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        score = super().__call__(state, attention)
        return score - score.mean()


class ByPlace(Scorer):
    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return torch.arange(state.num_tokens).expand(state.index.shape).float()


class Undeclared(Scorer):
    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return attention[AttentionStat.diagonal()]


class SecretCLS(Scorer):
    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        return (AttentionStat.row("cls"),)

    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return attention[AttentionStat.row("cls")]


class SecretGrid(Scorer):
    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return (state.index % state.grid[1]).float()


class NeverRefuses(Norm):
    traits: ClassVar[Traits] = Traits(needs_cls=True)

    def check(self, info: ModelInfo) -> None: ...


class AlwaysRefuses(Norm):
    traits: ClassVar[Traits] = Traits(needs_cls=True)

    def check(self, info: ModelInfo) -> None:
        super().check(ModelInfo("x", 8, 1, 8, 0, None, None, 16, ()))


class BuildsNothing(Norm):
    def build(self, info: ModelInfo) -> None:  # type: ignore[override]
        return None


FAULTS = [
    (Transposed(), "one finite score", r"expected shape \(1, 1\), .* got \(1, 1, 1\)"),
    (DividesByZero(), "one finite score", "scores are not finite"),
    (InPlace(), "inputs are not modified", "state.x was changed in place"),
    (EditsStatistic(), "inputs are not modified", r"attention\.values\[.*was changed in place"),
    (Dice(), "deterministic: the same input, the same scores", "asked twice|tried again"),
    (OverTheBatch(), "treated alone as in a batch", r"image \d alone and in the batch"),
    (ByPlace(), "equivariant: permuting the tokens", "the scores for permuted tokens"),
    (Undeclared(), "one finite score", "PartError: .*Declare it"),
    (SecretCLS(), "one finite score", "ConfigError: .*no CLS token"),
    (SecretGrid(), "the grid is not read unless", "called a single row"),
    (NeverRefuses(), r"needs_cls: check\(\) refuses a model", "the model was accepted"),
    (AlwaysRefuses(), "one finite score", "refuses every model drawn"),
    (BuildsNothing(), "one finite score", r"build\(\) gives None"),
]


@pytest.mark.parametrize("name", NAMES)
def test_every_scorer_keeps_its_promises(name: str) -> None:
    check_scorer(name, max_examples=10)


@pytest.mark.parametrize(
    ("scorer", "promise", "found"), FAULTS, ids=[type(fault[0]).__name__ for fault in FAULTS]
)
def test_a_planted_fault_is_found(scorer: Scorer, promise: str, found: str) -> None:
    message = rf"(?s)scorer {type(scorer).__name__}\(\) breaks its contract.*{promise}.*(?:{found})"
    with pytest.raises(AssertionError, match=message):
        check_scorer(scorer)


def test_a_sound_scorer_passes() -> None:
    check_scorer(Norm())


def test_the_message_ends_with_the_smallest_example() -> None:
    with pytest.raises(AssertionError, match=r"example: Sample\(b=1, p=0, n=1, c=1, heads=1"):
        check_scorer(Transposed())


def test_a_declared_chance_may_be_random() -> None:
    class HonestDice(Dice):
        traits: ClassVar[Traits] = Traits(deterministic=False, equivariant=False, needs_grid=True)

    check_scorer(HonestDice())


def test_a_scorer_with_weights_is_built_and_checked() -> None:
    class Linear(Scorer):
        def build(self, info: ModelInfo) -> nn.Module:
            return Module(info.width)

    class Module(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.linear = nn.Linear(width, 1)

        def forward(self, state: TokenState, attention: AttentionStats) -> Tensor:
            return self.linear(state.image)[..., 0]

    check_scorer(Linear())


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'DiagAttn'"):
        check_scorer("DiagAtn")
