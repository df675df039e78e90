"""The interval covers what it promises, and is never a point."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from tokenred.analysis import paired_difference, paired_limits
from tokenred.core.errors import ConfigError, InputError


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.8])
@pytest.mark.parametrize(
    ("n", "differing"),
    [(n, differing) for n in (200, 500, 1000, 2000) for differing in (10 / n, 20 / n, 0.1, 0.4)],
)
def test_coverage(n: int, differing: float, share: float) -> None:
    """Of 2000 simulated pairs 93 to 97% are covered, at a difference of share × differing."""
    only_a, only_b = differing * (1 + share) / 2, differing * (1 - share) / 2
    rng = np.random.default_rng(2024)
    x, y, _ = rng.multinomial(n, [only_a, only_b, 1 - differing], size=2000).T
    low, high = paired_limits(x, y, n)
    truth = only_a - only_b
    covered = ((low <= truth) & (truth <= high)).mean()
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("expected", [4, 6, 8])
def test_coverage_where_few_images_tell_the_models_apart(expected: int, share: float) -> None:
    """Summed over all outcomes, since 2000 trials are too few so near to the bounds."""
    n = 500
    x, y = np.indices((40, 40))
    only_a, only_b = expected / n * (1 + share) / 2, expected / n * (1 - share) / 2
    weight = stats.multinomial.pmf(
        np.stack((x, y, n - x - y), axis=-1), n, (only_a, only_b, 1 - only_a - only_b)
    )
    low, high = paired_limits(x, y, n)
    truth = only_a - only_b
    covered = weight[(low <= truth) & (truth <= high)].sum()
    assert weight.sum() == pytest.approx(1)
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(("n", "differing"), [(200, 0.005), (1000, 0.002)])
def test_with_next_to_no_differing_images_it_errs_on_the_safe_side(
    n: int, differing: float
) -> None:
    x = np.random.default_rng(0).binomial(n, differing / 2, size=(2, 2000))
    low, high = paired_limits(x[0], x[1], n)
    assert ((low <= 0) & (high >= 0)).mean() >= 0.95


def test_published_figures() -> None:
    # Fagerland, Lydersen and Laake, "Statistical Analysis of Contingency Tables", 2017, chapter 8:
    # 6 and 16 of 161 pairs differ.
    a = np.repeat([True, True, False, False], [59, 6, 16, 80])
    b = np.repeat([True, False, True, False], [59, 6, 16, 80])
    found = paired_difference(a, b)
    assert found.difference == pytest.approx(-0.0621, abs=5e-5)
    assert (found.low, found.high) == pytest.approx((-0.1240, -0.0054), abs=5e-5)
    assert found.p_value == pytest.approx(0.052479, abs=5e-7)
    assert (found.only_a, found.only_b) == (6, 16)
    # 1 and 7 of 21.
    assert tuple(map(float, paired_limits(1, 7, 21))) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize(("x", "y", "n"), [(12, 4, 50), (0, 5, 300), (3, 3, 1000)])
def test_the_ends_are_where_the_score_test_just_rejects(x: int, y: int, n: int) -> None:
    """The test by the book: the likelihood under a supposed difference maximised numerically."""
    for supposed, sign in zip(paired_limits(x, y, n), (1, -1), strict=True):
        d = float(supposed)

        def minus_log_likelihood(q: float, d: float = d) -> float:
            cells = (q + d, q, 1 - 2 * q - d)
            counts = (x, y, n - x - y)
            return -sum(c * math.log(p) for c, p in zip(counts, cells, strict=True) if c)

        ends = (max(0.0, -d) + 1e-12, (1 - d) / 2 - 1e-12)
        q = optimize.minimize_scalar(
            minus_log_likelihood, bounds=ends, method="bounded", options={"xatol": 1e-13}
        ).x
        error = math.sqrt((2 * q + d - d**2) / n)
        assert ((x - y) / n - d) / error == pytest.approx(sign * 1.959964, rel=1e-3)


def test_one_pair_or_many() -> None:
    x, y = np.array([[0, 3], [7, 20]]), np.array([2, 5])
    low, high = paired_limits(x, y, 40, 0.9)
    assert low.shape == high.shape == (2, 2)
    for i, j in np.ndindex(2, 2):
        one = paired_limits(x[i, j], y[j], 40, 0.9)
        assert (float(one[0]), float(one[1])) == (low[i, j], high[i, j])


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
    with pytest.raises(ConfigError, match=r"in \(0, 1\)"):
        paired_difference([True], [True], level=95)
    with pytest.raises(ConfigError, match=r"in \(0, 1\)"):
        paired_limits(1, 2, 10, level=1.0)
    for counts in ((-1, 0, 5), (3, 3, 5), (0, 0, 0)):
        with pytest.raises(InputError, match="expected counts"):
            paired_limits(*counts)
