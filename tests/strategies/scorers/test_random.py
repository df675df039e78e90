"""Seeded chance: reproducible, uniform, and without correlation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tokenred.attention import AttentionStats
from tokenred.core.state import TokenState
from tokenred.strategies import Random

QUICK = settings(max_examples=25, deadline=None, derandomize=True)


def score(
    seed: int = 0, layer: int = 0, n: int = 196, b: int = 1, dtype: torch.dtype = torch.float32
) -> np.ndarray:
    index = torch.arange(n).expand(b, n)
    state = TokenState(torch.zeros(b, n, 1, dtype=dtype), index, 0, (1, n), layer=layer)
    return Random(seed=seed)(state, AttentionStats()).numpy()


@QUICK
@given(st.integers(0, 2**40), st.integers(0, 47), st.integers(1, 5))
def test_it_is_the_same_in_any_batch_and_type(seed: int, layer: int, b: int) -> None:
    one = score(seed, layer)
    np.testing.assert_array_equal(score(seed, layer, b=b), np.repeat(one, b, axis=0))
    np.testing.assert_array_equal(score(seed, layer, dtype=torch.bfloat16), one)
    assert one.min() >= 0
    assert one.max() <= 1


def test_it_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    score()
    assert torch.equal(torch.get_rng_state(), before)


def test_it_follows_the_position_and_not_the_place() -> None:
    index = torch.tensor([[7, 2, 5]])
    state = TokenState(torch.zeros(1, 3, 1), index, 0, (1, 196))
    found = Random()(state, AttentionStats())[0].numpy()
    np.testing.assert_array_equal(found, score()[0, [7, 2, 5]])


@pytest.mark.parametrize("layer", [0, 1, 11])
def test_it_is_uniform(layer: int) -> None:
    many = np.concatenate([score(seed, layer, n=784)[0] for seed in range(20)])
    assert stats.kstest(many, "uniform").pvalue > 1e-3
    counts, _ = np.histogram(many, bins=16, range=(0, 1))
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(
    ("one", "other"),
    [((0, 0), (1, 0)), ((0, 0), (0, 1)), ((1, 0), (0, 1)), ((0, 5), (5, 0)), ((7, 3), (8, 3))],
)
def test_seeds_and_blocks_differ(one: tuple[int, int], other: tuple[int, int]) -> None:
    first, second = score(*one, n=784)[0], score(*other, n=784)[0]
    assert len(np.unique(np.concatenate((first, second)))) > 1500
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.12
