"""Which patches are kept, and the two ways to compare it, against their definitions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

import tokenred as tr
from tokenred.analysis.measure.tokens.selections import (
    alive,
    chance_iou,
    iou,
    scores,
    spearman,
    survival,
)
from tokenred.reduced.trace import Trace


def _trace(model: nn.Module, recipe: str, **arguments: object) -> Trace:
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return tr.wrap(model, tr.strategy(recipe, **arguments)).run_with_trace(images)[1]


@pytest.mark.parametrize("recipe", ["gtp", "tome", "evit"])
def test_alive(digits: nn.Module, recipe: str) -> None:
    trace = _trace(digits, recipe)
    kept = alive(trace)
    assert kept.shape == (3, 8, 64)
    for layer, index in enumerate(trace.index_per_layer):
        for i in range(3):
            expected = {place for place in index[i].tolist() if place >= 0}
            assert set(np.flatnonzero(kept[i, layer])) == expected
    # What is gone stays gone.
    assert (np.diff(kept.astype(int), axis=1) <= 0).all()
    stayed = survival(kept)
    assert (stayed[:, -1][kept[:, -1]] == 8).all()
    assert stayed[:, 0].max() == 1


def test_scores(digits: nn.Module) -> None:
    trace = _trace(digits, "topk", keep_rate=0.5)
    found = scores(trace)
    known = ~np.isnan(found)
    assert [step.layer for step in trace.steps] == [2, 4, 6]
    assert known.sum(axis=-1)[0].tolist() == [0, 0, 64, 0, 32, 0, 16, 0]
    kept = alive(trace)
    for layer in (2, 4, 6):
        for i in range(3):
            own = found[i, layer]
            gone = known[i, layer] & ~kept[i, layer]
            assert own[kept[i, layer]].min() >= own[gone].max()
    assert np.isnan(scores(_trace(digits, "tome"))).all()


def test_iou() -> None:
    a = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=bool)
    b = np.array([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=bool)
    assert iou(a, b)[:2].tolist() == pytest.approx([1 / 3, 1])
    assert np.isnan(iou(a, b)[2])


@pytest.mark.parametrize(("a", "b", "n"), [(2, 3, 5), (1, 1, 4), (4, 4, 4), (0, 2, 5)])
def test_chance(a: int, b: int, n: int) -> None:
    fixed = set(range(a))
    every = [len(fixed & set(c)) / len(fixed | set(c)) for c in combinations(range(n), b)]
    flags = (np.arange(n) < a)[None, None], (np.arange(n) < b)[None, None]
    assert chance_iou(*flags)[0, 0] == pytest.approx(np.mean(every))


def test_chance_of_nothing() -> None:
    nothing = np.zeros((1, 1, 3), dtype=bool)
    assert np.isnan(chance_iou(nothing, nothing)).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 12), st.integers(0, 999), st.floats(0, 0.5))
def test_spearman_is_scipys(n: int, seed: int, missing: float) -> None:
    rng = np.random.default_rng(seed)
    # Few values, so that many tie.
    x, y = rng.integers(0, 4, size=(2, 5, n)).astype(float)
    x[rng.random(x.shape) < missing] = np.nan
    y[rng.random(y.shape) < missing] = np.nan
    found = spearman(x, y)
    for row in range(5):
        known = ~np.isnan(x[row]) & ~np.isnan(y[row])
        own, other = x[row][known], y[row][known]
        if len(set(own)) < 2 or len(set(other)) < 2:
            assert np.isnan(found[row])
        else:
            assert found[row] == pytest.approx(stats.spearmanr(own, other).statistic)
