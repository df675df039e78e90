"""Which patches are kept, and how far methods agree on them."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

import tokenred as tr
from tokenred.analysis import Agreement, agreement
from tokenred.analysis.measure.agreement import chance_iou, spearman
from tokenred.analysis.measure.inputs import open_for
from tokenred.core.errors import ConfigError

QUICK: dict[str, Any] = {"limit": 20, "batch_size": 8, "progress": False}
SPECS = ["gtp", "topk", "tome", "evit"]


@pytest.fixture(scope="module")
def result(digits: nn.Module) -> Agreement:
    return agreement(digits, "digits", SPECS, removed=[0, 6, 0, 6], name="digits ViT", **QUICK)


def test_rows(result: Agreement, digits: nn.Module) -> None:
    frame = result.frame
    assert frame.groupby(["a", "b"], sort=False).ngroups == 6
    # From the first block that removes on; scores where tokens are scored, by both.
    assert set(frame["layer"]) == set(range(1, 8))
    scored = frame[frame["statistic"] == "scores"]
    assert set(scored["layer"]) == {1, 3}
    assert "tome" not in {*scored["a"], *scored["b"]}
    assert set(frame["tokens"]) == {58, 52}
    assert (frame["images"] == 20).all()
    assert frame["mean"].between(-1, 1).all()
    assert (frame["low"] <= frame["mean"] + 1e-9).all()
    # The figures are those of the traces.
    images = next(iter(tr.data.make_loader(open_for(digits, "digits"), 20, limit=20)))[0]
    gtp, topk = (
        tr.wrap(digits, tr.strategy(name).replace(schedule=tr.PerLayer((0, 6, 0, 6))))
        .kept_tokens(images)
        .index.tolist()
        for name in ("gtp", "topk")
    )
    shares = [len({*a} & {*b}) / len({*a} | {*b}) for a, b in zip(gtp, topk, strict=True)]
    (row,) = frame.query("a == 'gtp' and b == 'topk' and layer == 7 and statistic == 'iou'").iloc
    assert row["mean"] == pytest.approx(np.mean(shares))
    assert row["low"] < row["mean"] < row["high"]


def test_what_agrees_and_what_does_not(digits: nn.Module) -> None:
    specs = {"a": "topk", "b": "topk", "c": "random", "d": "topk:scorer=Random(seed=1)"}
    frame = agreement(digits, "digits", specs, removed=4, **QUICK).frame
    assert frame.query("a == 'a' and b == 'b'")["mean"].tolist() == pytest.approx([1] * (3 * 8))
    last = frame[frame["layer"] == 7].set_index(["a", "b", "statistic"])
    luck = last.loc["a", "c", "iou"]
    assert luck["mean"] == pytest.approx(luck["chance"], abs=0.06)
    assert abs(last.loc["c", "d", "survival"]["mean"]) < 0.25


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


@pytest.mark.parametrize(("a", "b", "n"), [(2, 3, 5), (4, 4, 4), (0, 2, 5)])
def test_chance(a: int, b: int, n: int) -> None:
    fixed = set(range(a))
    every = [len(fixed & set(c)) / len(fixed | set(c)) for c in combinations(range(n), b)]
    flags = (np.arange(n) < a)[None, None], (np.arange(n) < b)[None, None]
    assert chance_iou(*flags)[0, 0] == pytest.approx(np.mean(every))


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 12), st.integers(0, 999), st.floats(0, 0.5))
def test_spearman_is_scipys(n: int, seed: int, missing: float) -> None:
    rng = np.random.default_rng(seed)
    # Few values, so that many tie.
    x, y = rng.integers(0, 4, size=(2, 5, n)).astype(float)
    x[rng.random(x.shape) < missing] = np.nan
    y[rng.random(y.shape) < missing] = np.nan
    for own, other, found in zip(x, y, spearman(x, y), strict=True):
        known = ~np.isnan(own) & ~np.isnan(other)
        if len(set(own[known])) < 2 or len(set(other[known])) < 2:
            assert np.isnan(found)
        else:
            assert found == pytest.approx(stats.spearmanr(own[known], other[known]).statistic)
