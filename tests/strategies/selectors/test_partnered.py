"""The best by score, each of the others with its partner, and the means that come of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tokenred.attention import AttentionStats
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.core.info import ModelInfo
from tokenred.core.state import Selection, TokenState
from tokenred.reduced.trace import fuser_matrix
from tokenred.strategies import Merge, TopScore
from tokenred.strategies.base import Scorer
from tokenred.strategies.selectors import Partnered
from tokenred.testing import Sample, check_selector, draw
from tokenred.testing.sample import model_info

QUICK = settings(max_examples=40, deadline=None, derandomize=True)
WEIGHTS = ("importance", "size", "similarity")
SAMPLES = draw.smooth_samples()


class FirstFeature(Scorer):
    """A score that is below 0 for about half of the tokens."""

    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return state.image[..., 0]


def chosen_of(sample: Sample, weights: str, data: st.DataObject) -> Selection:
    count = data.draw(st.integers(0, sample.state.num_tokens - 1))
    part = Partnered(FirstFeature(), weights, 0.5)
    return part(sample.state, AttentionStats(), count)


@QUICK
@given(SAMPLES, st.sampled_from(WEIGHTS), st.data())
def test_the_partner_is_the_most_similar_of_those_that_stay(
    sample: Sample, weights: str, data: st.DataObject
) -> None:
    chosen = chosen_of(sample, weights, data)
    count = chosen.drop.shape[1]
    plain = TopScore(FirstFeature())(sample.state, AttentionStats(), count)
    assert torch.equal(chosen.keep, plain.keep)
    assert torch.equal(chosen.drop, plain.drop)
    cosine = nn.functional.cosine_similarity
    for x, keep, drop, partner in zip(
        sample.state.image, chosen.keep, chosen.drop, chosen.partner, strict=True
    ):
        for place, found in zip(drop.tolist(), partner.tolist(), strict=True):
            likeness = [cosine(x[place], x[k], dim=0).item() for k in keep.tolist()]
            assert keep.tolist()[max(range(len(keep)), key=likeness.__getitem__)] == found


@QUICK
@given(SAMPLES, st.sampled_from(WEIGHTS), st.data())
def test_the_means_by_hand(sample: Sample, weights: str, data: st.DataObject) -> None:
    state, chosen = sample.state, chosen_of(sample, weights, data)
    after = Merge()(state, chosen, None, AttentionStats())
    for i in range(state.x.shape[0]):
        x, score = state.image[i], state.image[i, :, 0]
        for slot, kept in enumerate(chosen.keep[i].tolist()):
            family = [d for d, to in zip(chosen.drop[i].tolist(), chosen.partner[i].tolist(),
                                         strict=True) if to == kept]  # fmt: skip
            family = [kept, *family]
            if weights == "importance":
                weight = score[family].clamp_min(0)
            elif weights == "size":
                weight = torch.ones(len(family), dtype=x.dtype)
                weight = weight if state.size is None else state.image_size[i, family].double()
            else:
                like = nn.functional.cosine_similarity(x[family], x[kept][None], dim=1)
                weight = (like / 0.5).softmax(dim=0)
            # A family of which nobody is important stays as its first.
            expected = x[kept] if weight.sum() == 0 else (weight / weight.sum()) @ x[family]
            torch.testing.assert_close(after.image[i, slot], expected)
            if state.size is not None:
                total = state.image_size[i, family].sum()
                torch.testing.assert_close(after.image_size[i, slot], total)


@QUICK
@given(SAMPLES, st.sampled_from(WEIGHTS), st.data())
def test_at_a_given_choice_the_mean_is_linear_and_recorded(
    sample: Sample, weights: str, data: st.DataObject
) -> None:
    state, chosen = sample.state, chosen_of(sample, weights, data)

    def through(x: Tensor) -> Tensor:
        return Merge()(replace(state, x=x), chosen, None, AttentionStats()).image

    other = torch.randn(state.x.shape, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(
        through(2 * state.x - other), 2 * through(state.x) - through(other), atol=1e-10, rtol=1e-10
    )
    matrix = fuser_matrix(Merge(), state, chosen, AttentionStats())
    torch.testing.assert_close(matrix @ state.image, through(state.x))
    torch.testing.assert_close(matrix.sum(dim=-1), torch.ones_like(matrix[..., 0]))


def test_promises() -> None:
    check_selector(Partnered("MixedAttn", "similarity"), max_examples=3)


class Learned(Scorer):
    """A scorer with weights."""

    def build(self, info: ModelInfo) -> nn.Module:
        return LearnedModule(info.width)


class LearnedModule(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)

    def forward(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return self.linear(state.image)[..., 0]


def test_a_scorer_with_weights() -> None:
    module = Partnered(Learned()).built_for(model_info(4, (2, 3)))
    assert module.network is not None
    assert "scorer.linear.weight" in module.network.state_dict()
    state = TokenState(torch.randn(2, 7, 4), torch.arange(6).expand(2, 6), 1, (2, 3))
    chosen = module(state, AttentionStats(), 2)
    assert chosen.partner.shape == (2, 2)
    check_selector(Partnered(Learned()), max_examples=3)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="weights must be one of 'importance', 'size'"):
        Partnered("MixedAttn", "sizes")
    with pytest.raises(ConfigError, match="temperature must be"):
        Partnered("MixedAttn", "similarity", 0)
    with pytest.raises(UnknownNameError, match="Did you mean 'MixedAttn'"):
        Partnered("MixdAttn")
    without = model_info(8, (2, 2), cls_index=None)
    assert Partnered().built_for(without).scorer.requires != Partnered().requires
    with pytest.raises(ConfigError, match="CLS token"):
        Partnered("CLSAttn").check(without)
