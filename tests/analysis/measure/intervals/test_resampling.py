"""Bootstrap intervals cover, hang on the seed alone, and say where they cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from tokenred.analysis import Estimate, bootstrap_interval
from tokenred.core.errors import ConfigError, InputError

RNG = np.random.default_rng(3)
SKEWED = RNG.exponential(size=60)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_it_covers_the_mean_of_skewed_values(method: str) -> None:
    rng = np.random.default_rng(11)
    trials, hits = 400, 0
    for trial in range(trials):
        values = rng.exponential(size=100)
        found = bootstrap_interval(values, resamples=400, seed=trial, method=method)
        hits += found.low <= 1.0 <= found.high
    # Three standard errors of so many trials are 3.3%.
    assert 0.90 <= hits / trials <= 0.98


def test_the_mean_of_many_is_that_of_the_normal_theory() -> None:
    values = np.random.default_rng(0).normal(5, 2, size=5000)
    found = bootstrap_interval(values, resamples=1000)
    half = 1.96 * values.std(ddof=1) / np.sqrt(5000)
    assert found.method == "percentile"
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.15 * half
    )


def test_the_seed_decides_and_nothing_else() -> None:
    first = bootstrap_interval(SKEWED, seed=1)
    np.random.random()  # noqa: NPY002
    assert bootstrap_interval(SKEWED, seed=1) == first
    assert bootstrap_interval(SKEWED, seed=2) != first
    assert isinstance(first, Estimate)
    assert (first.count, first.level, first.method) == (60, 0.95, "bca")


def test_a_higher_level_is_wider() -> None:
    narrow, wide = (bootstrap_interval(SKEWED, level=level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_samples_over_the_same_images_are_paired() -> None:
    a = np.random.default_rng(5).normal(size=200)
    b = a + 0.5
    gap = bootstrap_interval(a, b, statistic=lambda x, y, axis: (x - y).mean(axis=axis))
    # Paired, the gap is the same in every resample.
    assert (gap.value, gap.low, gap.high) == pytest.approx((-0.5, -0.5, -0.5))


def test_any_statistic_with_or_without_an_axis() -> None:
    median = bootstrap_interval(SKEWED, statistic=np.median)
    assert median.low < median.value == np.median(SKEWED) < median.high
    plain = bootstrap_interval(SKEWED, statistic=lambda x: float(np.median(x)))
    assert (plain.low, plain.high) == pytest.approx((median.low, median.high))
    top5 = bootstrap_interval(np.array([0, 7, 2, 9, 1, 0]) < 5)
    assert top5.value == pytest.approx(4 / 6)


def test_values_that_agree_give_a_point() -> None:
    found = bootstrap_interval(np.ones(30))
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_where_bca_is_not_defined_percentiles_stand_in() -> None:
    # A resample never has as many different values as the sample.
    found = bootstrap_interval(np.arange(20.0), statistic=lambda x: len(np.unique(x)))
    assert found.method == "percentile"
    assert found.low < found.high < found.value == 20


def test_refused() -> None:
    for sample in ([1.0], [[1.0, 2.0]], ["a", "b"], []):
        with pytest.raises(InputError, match="rows of two or more"):
            bootstrap_interval(sample)
    with pytest.raises(InputError, match="finite numbers"):
        bootstrap_interval([1.0, np.nan])
    with pytest.raises(InputError, match="sizes: 2, 3"):
        bootstrap_interval([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="sizes: none"):
        bootstrap_interval()
    with pytest.raises(InputError, match="from the statistic"):
        bootstrap_interval([1, 2], statistic=lambda x: x)
    with pytest.raises(InputError, match="for every resample"):
        bootstrap_interval([0, 0, 1], statistic=lambda x: 1 / x.sum() if x.sum() else np.nan)
    with pytest.raises(ConfigError, match="level"):
        bootstrap_interval([1, 2], level=95)
    with pytest.raises(ConfigError, match="resamples"):
        bootstrap_interval([1, 2], resamples=10)
    with pytest.raises(ConfigError, match="seed"):
        bootstrap_interval([1, 2], seed=-1)
    with pytest.raises(ConfigError, match="bca, percentile"):
        bootstrap_interval([1, 2], method="t")
