"""Intervals, against scipy's own."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from tokenred.analysis.plots.intervals import student, wilson
from tokenred.core.errors import ConfigError, InputError


@pytest.mark.parametrize("right", [0, 1, 37, 99, 100])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson(right: int, level: float) -> None:
    own = stats.binomtest(right, 100).proportion_ci(level, method="wilson")
    assert wilson(right, 100, level) == pytest.approx((100 * own.low, 100 * own.high))


def test_student() -> None:
    values = [70.0, 71.5, 69.0]
    mean, error = sum(values) / 3, stats.sem(values)
    assert student(values, 0.9) == pytest.approx(stats.t.interval(0.9, 2, mean, error))
    assert student([70.0, 70.0]) == (70.0, 70.0)


def test_refused() -> None:
    with pytest.raises(InputError, match="two runs"):
        student([1.0])
    for percent, images in ((101, 10), (-1, 10), (math.nan, 10), (50, 0)):
        with pytest.raises(InputError, match="percentage"):
            wilson(percent, images)
    with pytest.raises(ConfigError, match="level"):
        wilson(50, 10, 1.0)
