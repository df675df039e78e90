"""The best by score: any P, ties by position, and a score of the wrong shape refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tokenred.attention import AttentionStats
from tokenred.core.errors import ConfigError, PartError, UnknownNameError
from tokenred.core.info import ModelInfo
from tokenred.core.state import TokenState
from tokenred.strategies import CLSAttn, Random, TopScore
from tokenred.strategies.base import Scorer
from tokenred.testing.sample import model_info

QUICK = settings(max_examples=20, deadline=None, derandomize=True)


class Given(Scorer):
    """Scores that the state carries."""

    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return state.memory["score"]


def carrying(score: Tensor, p: int = 1) -> TokenState:
    b, n = score.shape[:2]
    x = torch.zeros(b, p + n, 1)
    return TokenState(x, torch.arange(n).expand(b, n), p, (1, n), memory={"score": score})


@QUICK
@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 4), st.integers(0, 9999), st.data())
def test_it_is_a_sort_by_score_and_place(
    b: int, n: int, levels: int, seed: int, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(seed)
    score = torch.randint(0, levels, (b, n), generator=generator).float()
    count = data.draw(st.integers(0, n - 1))
    chosen = TopScore(Given())(carrying(score), AttentionStats(), count)
    assert chosen.partner is None
    assert torch.equal(chosen.score, score)
    for row, keep, drop in zip(
        score.tolist(), chosen.keep.tolist(), chosen.drop.tolist(), strict=True
    ):
        best = sorted(range(n), key=lambda i, row=row: (-row[i], i))
        assert keep == sorted(best[: n - count])
        assert drop == best[n - count :]


@pytest.mark.parametrize("shape", [(2, 6), (2, 4), (2, 5, 1), (1, 5), (2,)])
def test_a_score_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    state = carrying(torch.zeros(2, 5))
    state = TokenState(state.x, state.index, 1, state.grid, memory={"score": torch.zeros(shape)})
    with pytest.raises(PartError, match=r"Given must return .* \(2, 5\) .* not scored"):
        TopScore(Given())(state, AttentionStats(), 1)


def test_a_score_that_is_not_returned_is_refused() -> None:
    class Forgets(Scorer):
        def __call__(self, state, attention):
            torch.zeros(2, 5)

    with pytest.raises(
        PartError, match=r"Forgets must .* \(2, 5\) .*got None. Is a return missing"
    ):
        TopScore(Forgets())(carrying(torch.zeros(2, 5)), AttentionStats(), 1)


def test_a_scorer_may_be_named() -> None:
    assert TopScore("random") == TopScore(Random())
    assert TopScore(CLSAttn()).requires == CLSAttn().requires
    assert TopScore(CLSAttn()).traits == CLSAttn().traits
    with pytest.raises(UnknownNameError, match="Did you mean 'CLSAttn'"):
        TopScore("ClsAtn")
    with pytest.raises(PartError, match="expected a scorer"):
        TopScore(3)  # type: ignore[arg-type]


def test_it_refuses_what_its_scorer_refuses() -> None:
    info = model_info(8, (2, 2), num_prefix=0, cls_index=None)
    with pytest.raises(ConfigError, match="CLSAttn reads the attention of a CLS token"):
        TopScore("CLSAttn").check(info)
    TopScore("MixedAttn").check(info)


def test_a_scorer_with_weights_becomes_a_submodule() -> None:
    class Learned(Scorer):
        def build(self, info: ModelInfo) -> nn.Module:
            return Head(info.width)

    class Head(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.linear = nn.Linear(width, 1)

        def forward(self, state: TokenState, attention: AttentionStats) -> Tensor:
            return self.linear(state.image)[..., 0]

    built = TopScore(Learned()).built_for(model_info(1, (1, 5)))
    assert built.network is not None
    assert [name for name, _ in built.network.named_parameters()] == [
        "scorer.linear.weight",
        "scorer.linear.bias",
    ]
    chosen = built(carrying(torch.zeros(2, 5)), AttentionStats(), 3)
    assert chosen.keep.tolist() == [[0, 1]] * 2
