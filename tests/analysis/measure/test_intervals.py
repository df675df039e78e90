"""Intervals cover what they promise, and depend on nothing but the values and the seed."""

import numpy as np
import pytest
from scipy import stats

from tokenred.analysis import paired_difference, paired_limits
from tokenred.analysis.measure.intervals import StreamingMeans
from tokenred.core.errors import ConfigError, InputError

# Paired differences.


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("expected", [4, 8, 20])
def test_coverage(expected: int, share: float) -> None:
    """Summed over all outcomes, for so many images that tell the models apart."""
    n = 500
    x, y = np.indices((70, 70))
    only_a, only_b = expected / n * (1 + share) / 2, expected / n * (1 - share) / 2
    weight = stats.multinomial.pmf(
        np.stack((x, y, n - x - y), axis=-1), n, (only_a, only_b, 1 - only_a - only_b)
    )
    low, high = paired_limits(x, y, n)
    truth = only_a - only_b
    covered = weight[(low <= truth) & (truth <= high)].sum()
    assert weight.sum() == pytest.approx(1)
    assert 0.93 <= covered <= 0.97


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


@pytest.mark.parametrize("n", [1, 1000])
@pytest.mark.parametrize(("a", "b"), [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_never_a_point_and_around_the_difference(n: int, a: int, b: int) -> None:
    found = paired_difference(np.full(n, a), np.full(n, b))
    assert -1 <= found.low < found.high <= 1
    assert found.low <= found.difference <= found.high
    assert found.p_value == (1.0 if a == b else pytest.approx(0.5 ** (n - 1)))


def test_pairs_refused() -> None:
    for a, b, said in (
        ([], [], "non-empty"),
        ([True, False], [True, False, True], "got 2 and 3"),
        ([0.5], [1.0], "array of booleans"),
    ):
        with pytest.raises(InputError, match=said):
            paired_difference(a, b)
    with pytest.raises(ConfigError, match=r"in \(0, 1\)"):
        paired_difference([True], [True], level=95)
    for counts in ((-1, 0, 5), (3, 3, 5), (0, 0, 0)):
        with pytest.raises(InputError, match="expected non-negative counts"):
            paired_limits(*counts)


# Means over a stream of images.


def _fill(values: np.ndarray, sizes: list[int], **options: int) -> StreamingMeans:
    means = StreamingMeans(values.shape[1], **options)
    for batch in np.split(values, np.cumsum(sizes)):
        means.add(batch)
    return means


def _bounds(means: StreamingMeans, level: float = 0.95) -> np.ndarray:
    found = means.figures(level)
    return np.stack((found["low"], found["high"]))


def test_batches_make_no_difference() -> None:
    values = np.random.default_rng(1).normal(size=(20, 3))
    whole, parts = _fill(values, [20]), _fill(values, [7, 1, 12])
    assert whole.figures()["mean"] == pytest.approx(values.mean(axis=0))
    assert parts.figures()["mean"] == pytest.approx(values.mean(axis=0))
    assert _bounds(parts) == pytest.approx(_bounds(whole))
    assert _bounds(_fill(values, [20], seed=1)) != pytest.approx(_bounds(whole))


def test_the_interval_covers_what_it_says() -> None:
    rng = np.random.default_rng(5)
    # 400 studies of 80 images each, in columns; their means are to be covered.
    means = _fill(rng.exponential(2.0, size=(80, 400)), [80])
    low, high = _bounds(means, 0.9)
    assert 0.84 <= np.mean((low <= 2) & (high >= 2)) <= 0.95
    wide, narrow = _bounds(means, 0.99)[:, 0], _bounds(means, 0.5)[:, 0]
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    with pytest.raises(ConfigError, match=r"in \(0, 1\)"):
        means.figures(95)


def test_differences_are_paired() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(size=200)
    # A gap of 0.1 that no unpaired interval could see.
    values = np.stack((base * 50, base * 50 + 0.1 + 0.01 * rng.normal(size=200)), axis=1)
    means = _fill(values, [200])
    gap, low, high = means.differences([1], [0])
    assert 0.09 < low[0] < gap[0] < high[0] < 0.11
    assert np.ptp(_bounds(means)[:, 0]) > 5


def test_what_is_not_defined_is_left_out() -> None:
    values = np.array([[1.0, np.nan, np.nan], [3.0, 4.0, np.nan], [5.0, 6.0, np.nan]])
    means = _fill(values, [2, 1])
    assert means.figures()["images"].tolist() == [3, 2, 0]
    assert means.figures()["mean"] == pytest.approx([3, 5, np.nan], nan_ok=True)
    low, high = _bounds(means)
    assert low[1] >= 4
    assert high[1] <= 6
    assert np.isnan([low[2], high[2]]).all()
