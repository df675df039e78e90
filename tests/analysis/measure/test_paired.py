"""The interval covers what it promises, and is never a point."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tokenred.analysis import paired_difference
from tokenred.core.errors import ConfigError, InputError


@pytest.mark.parametrize(
    ("n", "both", "only_a", "only_b"),
    [(100, 0.6, 0.1, 0.2), (360, 0.9, 0.02, 0.05), (1000, 0.7, 0.04, 0.04)],
)
def test_coverage(n: int, both: float, only_a: float, only_b: float) -> None:
    rng = np.random.default_rng(7)
    shares = [both, only_a, only_b, 1 - both - only_a - only_b]
    hits = 0
    for counts in rng.multinomial(n, shares, size=2000):
        a = np.repeat([True, True, False, False], counts)
        b = np.repeat([True, False, True, False], counts)
        found = paired_difference(a, b)
        hits += found.low <= only_a - only_b <= found.high
    assert 0.93 <= hits / 2000 <= 0.97


def test_figures_by_hand() -> None:
    # 12 only a, 4 only b, of 50: p = 13/52, q = 5/52.
    a = np.repeat([True, True, False, False], [20, 12, 4, 14])
    b = np.repeat([True, False, True, False], [20, 12, 4, 14])
    found = paired_difference(a, b)
    half = 1.959964 * math.sqrt((18 / 52 - (8 / 52) ** 2) / 52)
    assert found.difference == pytest.approx(8 / 50)
    assert (found.low, found.high) == pytest.approx((8 / 52 - half, 8 / 52 + half), abs=1e-6)
    assert (found.only_a, found.only_b) == (12, 4)
    assert found.p_value == pytest.approx(2 * stats.binom.cdf(4, 16, 0.5))


@pytest.mark.parametrize("n", [1, 10, 1000])
@pytest.mark.parametrize(("a", "b"), [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_never_a_point_and_around_the_difference(n: int, a: int, b: int) -> None:
    found = paired_difference(np.full(n, a), np.full(n, b))
    assert -1 <= found.low < found.high <= 1
    assert found.low <= found.difference <= found.high
    assert found.p_value == (1.0 if a == b else pytest.approx(0.5 ** (n - 1)))


def test_swapping_turns_the_sign() -> None:
    a, b = np.array([1, 1, 0, 1]), np.array([1, 0, 0, 0])
    there, back = paired_difference(a, b, 0.9), paired_difference(b, a, 0.9)
    assert (there.difference, there.low, there.high) == pytest.approx(
        (-back.difference, -back.high, -back.low)
    )


def test_refused() -> None:
    with pytest.raises(InputError, match="non-empty"):
        paired_difference([], [])
    with pytest.raises(InputError, match="got 2 and 3"):
        paired_difference([True, False], [True, False, True])
    with pytest.raises(InputError, match="true and false"):
        paired_difference([0.5], [1.0])
    with pytest.raises(ConfigError, match="between 0 and 1"):
        paired_difference([True], [True], level=95)
