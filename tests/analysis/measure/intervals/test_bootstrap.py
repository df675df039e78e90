"""Means and intervals that do not hang on how the images come."""

from __future__ import annotations

import numpy as np
import pytest

from tokenred.analysis.measure.intervals.bootstrap import StreamingMeans
from tokenred.core.errors import ConfigError


def _fill(values: np.ndarray, sizes: list[int], **options: int) -> StreamingMeans:
    means = StreamingMeans(values.shape[1], **options)
    start = 0
    for size in sizes:
        means.add(values[start : start + size])
        start += size
    return means


def test_batches_make_no_difference() -> None:
    values = np.random.default_rng(1).normal(size=(20, 3))
    whole, parts = _fill(values, [20]), _fill(values, [7, 1, 12])
    assert whole.means == pytest.approx(values.mean(axis=0))
    assert parts.means == pytest.approx(whole.means)
    assert parts.intervals() == pytest.approx(whole.intervals())
    assert _fill(values, [20], seed=1).intervals() != pytest.approx(whole.intervals())


def test_the_interval_covers_what_it_says() -> None:
    rng = np.random.default_rng(5)
    # 400 studies of 80 images each, in columns; their means are to be covered.
    low, high = _fill(rng.exponential(2.0, size=(80, 400)), [80]).intervals(0.9)
    assert 0.84 <= np.mean((low <= 2) & (high >= 2)) <= 0.95
    wide, narrow = (_fill(np.arange(9.0)[:, None], [9]).intervals(x) for x in (0.99, 0.5))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_differences_are_paired() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(size=200)
    # A gap of 0.1 that no unpaired interval could see.
    values = np.stack((base * 50, base * 50 + 0.1 + 0.01 * rng.normal(size=200)), axis=1)
    means = _fill(values, [200])
    gap, low, high = means.differences([1], [0])
    assert 0.09 < low[0] < gap[0] < high[0] < 0.11
    assert np.ptp(means.intervals()[:, 0]) > 5


def test_what_is_not_defined_is_left_out() -> None:
    values = np.array([[1.0, np.nan, np.nan], [3.0, 4.0, np.nan], [5.0, 6.0, np.nan]])
    means = _fill(values, [2, 1])
    assert means.counts.tolist() == [3, 2, 0]
    assert means.means[:2].tolist() == [3, 5]
    assert np.isnan(means.means[2])
    low, high = means.intervals()
    assert low[1] >= 4
    assert high[1] <= 6
    assert np.isnan([low[2], high[2]]).all()


def test_one_image_has_no_interval() -> None:
    means = _fill(np.ones((1, 1)), [1])
    assert means.means.tolist() == [1]
    assert np.isnan(means.intervals()).all()


def test_memory_stays_the_same() -> None:
    means = StreamingMeans(3, replicates=10)
    before = means._sum.nbytes + means._weight.nbytes
    for _ in range(50):
        means.add(np.ones((4, 3)))
    assert means._sum.nbytes + means._weight.nbytes == before
    assert means.counts.tolist() == [200] * 3


def test_refused() -> None:
    with pytest.raises(ConfigError, match=r"in \(0, 1\)"):
        _fill(np.ones((3, 1)), [3]).intervals(95)
