"""Which patches are kept, and how far methods agree on them."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

import tokenred as tr
from tokenred.analysis import Agreement, agreement
from tokenred.analysis.measure.agreement import alive, chance_iou, iou, scores, spearman
from tokenred.analysis.measure.inputs import open_for
from tokenred.core.errors import ConfigError
from tokenred.reduced.trace import Trace

QUICK: dict[str, Any] = {"limit": 20, "batch_size": 8, "progress": False}


SPECS = ["gtp", "topk", "tome", "evit"]


@pytest.fixture(scope="module")
def result(digits: nn.Module) -> Agreement:
    return agreement(digits, "digits", SPECS, removed=[0, 6, 0, 6], name="digits ViT", **QUICK)


def _row(frame: pd.DataFrame, a: str, b: str, layer: int, statistic: str) -> pd.Series:
    (found,) = [
        row
        for _, row in frame.iterrows()
        if (row["a"], row["b"], row["layer"], row["statistic"]) == (a, b, layer, statistic)
    ]
    return found


def test_rows(result: Agreement) -> None:
    frame = result.frame
    assert frame.groupby(["a", "b"], sort=False).ngroups == 6
    # From the first block that removes on; scores where tokens are scored, by both.
    assert set(frame["layer"]) == set(range(1, 8))
    scored = frame[frame["statistic"] == "scores"]
    assert set(scored["layer"]) == {1, 3}
    assert "tome" not in {*scored["a"], *scored["b"]}
    assert set(frame["tokens"]) == {58, 52}
    assert (frame["images"] == 20).all()
    shares = frame[frame["statistic"] == "iou"]
    assert shares["mean"].between(0, 1).all()
    assert frame["mean"].between(-1, 1).all()
    assert (frame["low"] <= frame["mean"] + 1e-9).all()


def test_the_figures_are_those_of_the_traces(result: Agreement, digits: nn.Module) -> None:
    counts = tr.PerLayer((0, 6, 0, 6))
    loader = tr.data.make_loader(open_for(digits, "digits"), 20, limit=20)
    images = next(iter(loader))[0]
    kept = []
    for recipe in ("gtp", "topk"):
        fast = tr.wrap(digits, tr.strategy(recipe).replace(schedule=counts))
        with torch.no_grad():
            kept.append(fast.run_with_trace(images)[1].index)
    pairs = [(set(a), set(b)) for a, b in zip(kept[0].tolist(), kept[1].tolist(), strict=True)]
    expected = np.mean([len(a & b) / len(a | b) for a, b in pairs])
    row = _row(result.frame, "gtp", "topk", 7, "iou")
    assert row["mean"] == pytest.approx(expected)
    assert row["low"] < expected < row["high"]


def test_what_agrees_and_what_does_not(digits: nn.Module) -> None:
    specs = {"a": "topk", "b": "topk", "c": "random", "d": "topk:scorer=Random(seed=1)"}
    frame = agreement(digits, "digits", specs, removed=4, **QUICK).frame
    same = frame[(frame["a"] == "a") & (frame["b"] == "b")]
    assert same["mean"].tolist() == pytest.approx([1] * (3 * 8))
    luck = _row(frame, "a", "c", 7, "iou")
    assert luck["mean"] == pytest.approx(luck["chance"], abs=0.06)
    assert abs(_row(frame, "c", "d", 7, "survival")["mean"]) < 0.25


def test_printed(result: Agreement) -> None:
    text = str(result)
    for words in ("last block (52 tokens): digits ViT on digits", "IoU", "by chance", "20 images"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 140
    assert result.plot(statistic="survival").axes


def test_refused(digits: nn.Module) -> None:
    with pytest.raises(ConfigError, match="two strategies"):
        agreement(digits, "digits", ["gtp"])
    with pytest.raises(ConfigError, match="level"):
        agreement(digits, "digits", SPECS, level=0)


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
    assert np.isnan(chance_iou(a, b)[2])


@pytest.mark.parametrize(("a", "b", "n"), [(2, 3, 5), (1, 1, 4), (4, 4, 4), (0, 2, 5)])
def test_chance(a: int, b: int, n: int) -> None:
    fixed = set(range(a))
    every = [len(fixed & set(c)) / len(fixed | set(c)) for c in combinations(range(n), b)]
    flags = (np.arange(n) < a)[None, None], (np.arange(n) < b)[None, None]
    assert chance_iou(*flags)[0, 0] == pytest.approx(np.mean(every))


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
