"""`check_selector`: every selector of the library passes, every planted fault is found."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.strategies import TopScore
from tokenred.strategies.base import Selector, selectors
from tokenred.testing import check_selector

ARGUMENTS: dict[str, dict[str, Any]] = {"TopScore": {"scorer": "MixedAttn"}}
NAMES = [entry.name for entry in selectors if entry.source.startswith("tokenred.")]


def split(order: Tensor, count: int, **more: Tensor) -> Selection:
    kept = order.shape[1] - count
    return Selection(order[:, :kept], order[:, kept:], **more)


class ByLength(Selector):
    """Sound; the faults below each break it in one place."""

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        score = self.score(state)
        return split(score.sort(dim=1, descending=True, stable=True).indices, count, score=score)

    def score(self, state: TokenState) -> Tensor:
        return state.image.float().abs().amax(dim=-1)


class DropsOneMore(ByLength):
    def limit(self, tokens: int) -> int:
        return max(0, tokens - 2)

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        return super().__call__(state, attention, min(count + 1, state.num_tokens - 1))


class KeepsTwice(ByLength):
    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        chosen = super().__call__(state, attention, count)
        return Selection(chosen.keep[:, :1].expand_as(chosen.keep), chosen.drop)


class PartnerGoes(ByLength):
    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        chosen = super().__call__(state, attention, count)
        return Selection(chosen.keep, chosen.drop, partner=chosen.drop)


class KeepsTheWorst(ByLength):
    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        score = self.score(state)
        return split(score.sort(dim=1, stable=True).indices, count, score=score)


class RandomTies(ByLength):
    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        score = self.score(state)
        shuffled = torch.rand(score.shape).argsort(dim=1)
        order = score.gather(1, shuffled).sort(dim=1, descending=True, stable=True).indices
        return split(shuffled.gather(1, order), count)


class LateTies(ByLength):
    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        score = self.score(state)
        back = score.flip(1).sort(dim=1, descending=True, stable=True).indices
        return split(score.shape[1] - 1 - back, count, score=score)


class TiesByBatch(ByLength):
    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        late = LateTies()(state, attention, count)
        return (
            split(torch.cat((late.keep, late.drop), dim=1), count)
            if len(state.x) > 1
            else (split(self.score(state).sort(dim=1, descending=True, stable=True).indices, count))
        )


class InPlace(ByLength):
    def score(self, state: TokenState) -> Tensor:
        return state.x.add_(1).float().abs().amax(dim=-1)[:, state.num_prefix :]


class FirstOnes(Selector):
    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        return split(torch.arange(state.num_tokens).repeat(len(state.x), 1), count)


class SecretGrid(ByLength):
    def score(self, state: TokenState) -> Tensor:
        return (state.index % state.grid[1]).float()


class TooGreedy(ByLength):
    def limit(self, tokens: int) -> int:
        return tokens + 1


FAULTS = [
    (DropsOneMore(), "exactly P of the places go", r"P=0: expected keep of shape"),
    (KeepsTwice(), "exactly P of the places go", "are not the places 0 … .* each once"),
    (PartnerGoes(), "partners are kept tokens", r"P=1: partners \[\[\d\]\] go too"),
    (KeepsTheWorst(), "the highest scores stay", "should stay"),
    (LateTies(), "the lower place wins a tie", "should stay"),
    (RandomTies(), "deterministic: the same input", "asked twice|tried again"),
    (TiesByBatch(), "an image is treated alone as in a batch", r"image \d alone"),
    (InPlace(), "inputs are not modified", "state.x was changed in place"),
    (FirstOnes(), "equivariant: permuting the tokens", "for permuted tokens"),
    (SecretGrid(), "the grid is not read", "called a single row"),
    (TooGreedy(), "exactly P of the places go", r"limit\(1\) is 2, of 1 tokens"),
]


@pytest.mark.parametrize("name", NAMES)
def test_every_selector_keeps_its_promises(name: str) -> None:
    check_selector(selectors.create(name, **ARGUMENTS.get(name, {})), max_examples=10)


@pytest.mark.parametrize("name", ["CLSAttn", "Random"])
def test_a_scorer_stands_for_a_selector(name: str) -> None:
    check_selector(name, max_examples=10)


@pytest.mark.parametrize(
    ("selector", "promise", "found"), FAULTS, ids=[type(fault[0]).__name__ for fault in FAULTS]
)
def test_a_planted_fault_is_found(selector: Selector, promise: str, found: str) -> None:
    name = type(selector).__name__
    message = (
        rf"(?s)selector {name}\(\) breaks its contract.*{promise}.*(?:{found}).*example: Sample"
    )
    if isinstance(selector, RandomTies):
        message = message.removesuffix(".*example: Sample")
    with pytest.raises(AssertionError, match=message):
        check_selector(selector)


def test_a_sound_selector_passes() -> None:
    check_selector(ByLength())


def test_a_selector_of_places_passes_once_it_says_so() -> None:
    class Honest(FirstOnes):
        traits: ClassVar[Traits] = Traits(equivariant=False)

    check_selector(Honest())


def test_top_score_of_an_instance() -> None:
    check_selector(TopScore("CLSAttn"), max_examples=5, derandomize=False)
