"""The best by score, each of the others with its partner, and the means that come of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tokenred.attention import AttentionStats
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.core.state import Selection, TokenState
from tokenred.strategies import Merge, TopScore
from tokenred.strategies.base import Scorer
from tokenred.strategies.selectors import Partnered
from tokenred.testing import Sample, check_selector, draw
from tokenred.testing.sample import model_info

QUICK = settings(max_examples=20, deadline=None, derandomize=True)
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


def test_promises() -> None:
    check_selector(Partnered("MixedAttn", "similarity"), max_examples=3)


def test_refusals() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'MixedAttn'"):
        Partnered("MixdAttn")
    without = model_info(8, (2, 2), cls_index=None)
    assert Partnered().built_for(without).scorer.requires != Partnered().requires
    with pytest.raises(ConfigError, match="CLS token"):
        Partnered("CLSAttn").check(without)
