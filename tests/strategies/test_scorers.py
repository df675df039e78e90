"""Scorers against the whole map or all pairs in NumPy, and what chance promises."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import tokenred as tr
from tokenred.attention import AttentionStats
from tokenred.core.state import TokenState
from tokenred.testing import Sample, draw
from tokenred.testing.sample import model_info

QUICK = settings(max_examples=25, deadline=None, derandomize=True)
OVER = {"max": np.max, "mean": np.mean}
OF_THE_MAP = [("DiagAttn", {}), ("CLSAttn", {})]
OF_THE_MAP += [
    (n, {"exclude_self": own}) for n in ("BroadAttn", "MixedAttn") for own in (True, False)
]


def softmax_map(sample: Sample) -> np.ndarray:
    """``(b, h, N, N)`` by the definition, in double precision."""
    q, k = (t.double().numpy() for t in (sample.qkv.q, sample.qkv.k))
    logits = np.einsum("bhid,bhjd->bhij", q, k) * sample.qkv.scale
    if sample.proportional:
        logits += np.log(sample.state.size.double().numpy())[:, None, None, :]
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(("name", "options"), OF_THE_MAP)
@pytest.mark.parametrize("aggregate", OVER)
def test_scores_are_those_of_the_whole_map(
    name: str, options: dict[str, Any], aggregate: str
) -> None:
    scorer = getattr(tr.scorers, name)(aggregate, **options)

    @QUICK
    @given(draw.smooth_samples(needs_cls=True))
    def check(sample: Sample) -> None:
        state, attention, over = sample.state, softmax_map(sample), OVER[aggregate]
        diagonal = np.diagonal(attention, axis1=-2, axis2=-1)
        own = over(diagonal, axis=1)
        # Over the heads of each factor by itself, and self excluded before the maximum.
        received = attention.sum(axis=-2) - options.get("exclude_self", False) * diagonal
        received = over(received, axis=1)
        expected = {
            "DiagAttn": own,
            "BroadAttn": received,
            "MixedAttn": own * received,
            "CLSAttn": over(attention[:, :, state.cls_index], axis=1),
        }[name]
        score = scorer(state, sample.attention(scorer.requires))
        np.testing.assert_allclose(score, expected[:, state.num_prefix :], atol=1e-12)

    check()


def test_received_attention_may_stand_in_for_that_of_cls() -> None:
    scorer, info = tr.scorers.CLSAttn("mean", "column_sum"), model_info(8, (2, 2))
    without = replace(info, cls_index=None)
    scorer.check(without)
    assert scorer.build(without) == tr.scorers.BroadAttn("mean")
    assert scorer.build(info) is scorer


@QUICK
@given(draw.samples(dtypes=(torch.float64,), flavours=("normal", "duplicates", "zeros", "same")))
def test_cos_sim_is_minus_the_mean_over_all_pairs(sample: Sample) -> None:
    keys = sample.qkv.k.numpy().mean(axis=1)[:, sample.state.num_prefix :]
    for on, x in (("keys", keys), ("features", sample.state.image.numpy())):
        scorer = tr.scorers.CosSim(on)
        length = np.linalg.norm(x, axis=-1, keepdims=True)
        unit = x / np.where(length > 0, length, 1)  # a zero vector has cosine 0 with all
        cosine = unit @ unit.swapaxes(1, 2)
        cosine[:, range(x.shape[1]), range(x.shape[1])] = 0
        score = scorer(sample.state, sample.attention(scorer.requires))
        np.testing.assert_allclose(score, -cosine.sum(-1) / max(1, x.shape[1] - 1), atol=1e-9)


# ---------------------------------------------------------------- chance


def chance(seed: int = 0, layer: int = 0, n: int = 196, b: int = 1) -> np.ndarray:
    index = torch.arange(n).expand(b, n)
    state = TokenState(torch.zeros(b, n, 1).bfloat16(), index, 0, (1, n), layer=layer)
    return tr.scorers.Random(seed)(state, AttentionStats()).numpy()


@QUICK
@given(st.integers(0, 2**40), st.integers(0, 47), st.integers(1, 5))
def test_chance_depends_on_seed_block_and_position_alone(seed: int, layer: int, b: int) -> None:
    before = torch.get_rng_state()
    one = chance(seed, layer)
    np.testing.assert_array_equal(chance(seed, layer, b=b), np.repeat(one, b, axis=0))
    moved = TokenState(torch.zeros(1, 3, 1), torch.tensor([[7, 2, 5]]), 0, (1, 196), layer=layer)
    found = tr.scorers.Random(seed)(moved, AttentionStats())
    np.testing.assert_array_equal(found, one[:, [7, 2, 5]])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("layer", [0, 1, 11])
def test_chance_is_uniform(layer: int) -> None:
    many = np.concatenate([chance(seed, layer, n=784)[0] for seed in range(20)])
    assert stats.kstest(many, "uniform").pvalue > 1e-3
    for other in ((1, layer), (0, layer + 1), (layer + 1, 0)):
        assert abs(np.corrcoef(chance(0, layer, 784)[0], chance(*other, 784)[0])[0, 1]) < 0.12


# ---------------------------------------------------------------- cost

BUILT_IN = [getattr(tr.scorers, name)() for name in tr.scorers.__all__]


@pytest.mark.parametrize("scorer", [*BUILT_IN, tr.scorers.CosSim("features")], ids=repr)
def test_scorers_that_multiply_vectors_count_the_products(scorer: tr.Scorer) -> None:
    @settings(QUICK, max_examples=5)
    @given(draw.smooth_samples(needs_cls=True))
    def check(sample: Sample) -> None:
        state, attention = sample.state, sample.attention(scorer.requires)
        other = replace(state, x=torch.randn_like(state.x))
        features = not torch.equal(scorer(state, attention), scorer(other, attention))
        keys = tr.AttentionStat.keys() in scorer.requires
        n, info = state.num_tokens, sample.info
        width = info.head_dim if keys else info.width * features
        assert scorer.macs(info, n, 1) == n * width or n == 1  # nothing to compare it with

    check()
