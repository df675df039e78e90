"""Confidence intervals: paired differences, and the bootstrap over a stream of images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokenred.core.errors import InputError
from tokenred.core.values import PartOf, read

Floats = NDArray[np.float64]

# Halvings of an interval of length 2, until its ends are neighbours in double precision.
_HALVINGS = 60
_REPLICATES = 1000  # of the bootstrap


@dataclass(frozen=True)
class Interval:
    """The difference of two accuracies on the same images, as proportions in −1 … 1.

    Attributes:
        difference: accuracy of a minus accuracy of b.
        low, high: the interval.
        level: its nominal coverage.
        only_a, only_b: numbers of images that only a, or only b, classifies correctly.
        p_value: p-value of McNemar's exact test of equal accuracy.
    """

    difference: float
    low: float
    high: float
    level: float
    only_a: int
    only_b: int
    p_value: float


def paired_difference(correct_a: ArrayLike, correct_b: ArrayLike, level: float = 0.95) -> Interval:
    """The difference in accuracy of models a and b on the same images.

    The interval is that of `paired_limits`. The test: McNemar, "Note on the sampling error of the
    difference between correlated proportions or percentages", Psychometrika 12, 1947, in its exact
    (binomial) form.

    Args:
        correct_a, correct_b: ``(n,)`` of bool (or 0 and 1), the same images in the same order.
        level: nominal coverage.

    Raises:
        InputError: if the arrays are empty, differ in shape, or contain values other than 0 and 1.
        ConfigError: for another level.
    """
    a, b = _flags("correct_a", correct_a), _flags("correct_b", correct_b)
    if a.shape != b.shape:
        raise InputError(
            f"expected two arrays over the same images, got {a.size} and {b.size} of them; "
            "evaluate both models on the same data."
        )
    n, x, y = a.size, int((a & ~b).sum()), int((~a & b).sum())
    low, high = paired_limits(x, y, n, level)
    from scipy import stats

    p_value = float(stats.binomtest(x, x + y).pvalue) if x + y else 1.0
    return Interval((x - y) / n, float(low), float(high), level, x, y, p_value)


def _flags(name: str, values: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0 or not np.isin(array, (0, 1)).all():
        raise InputError(
            f"expected {name} as a non-empty 1-D array of booleans, one per image, got "
            f"shape {array.shape}, dtype {array.dtype}; pass Evaluation.correct."
        )
    return array.astype(np.bool_)


def paired_limits(
    only_a: ArrayLike, only_b: ArrayLike, images: ArrayLike, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Tango's score interval for the difference of two paired proportions (vectorised).

    It contains all differences that a score test does not reject. Its coverage stays near the
    nominal one even if the models differ on few images, where Wald's interval is too narrow and its
    adjusted forms are too wide; below about four such images no interval can, since counts are
    integers. It never has zero width, not even for two models that agree everywhere.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for
    the paired-sample design", Statistics in Medicine 17, 1998.

    Args:
        only_a, only_b: numbers of images that only a, or only b, classifies correctly.
        images: total number of images.
        level: nominal coverage.

    Returns:
        The lower and upper ends, with the broadcast shape of the arguments.

    Raises:
        InputError: if the counts are impossible.
        ConfigError: for another level.
    """
    level = read(PartOf, level, "level")
    x, y, n = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (only_a, only_b, images)))
    if not ((x >= 0) & (y >= 0) & (n >= 1) & (x + y <= n)).all():
        raise InputError(
            "expected non-negative counts of images that only one model classifies correctly, "
            "whose sum does not exceed the number of images, and at least one image."
        )
    from scipy import stats

    z = float(stats.norm.ppf((1 + level) / 2))
    observed = (x - y) / n

    def end(score: float, below: Floats, above: Floats) -> Floats:
        # The score decreases with the assumed difference.
        for _ in range(_HALVINGS):
            middle = (below + above) / 2
            higher = _score(middle, x, y, n) > score
            below, above = np.where(higher, middle, below), np.where(higher, above, middle)
        return np.asarray((below + above) / 2)

    return end(z, np.full(x.shape, -1.0), observed), end(-z, observed, np.full(x.shape, 1.0))


def _score(difference: Floats, x: Floats, y: Floats, n: Floats) -> Floats:
    """The observed minus an assumed difference, in standard errors."""
    # The most likely share of "only b" given that difference solves a quadratic equation.
    linear = (2 * n - x + y) * difference - x - y
    constant = -y * difference * (1 - difference)
    only_b = (np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0)) - linear) / (4 * n)
    variance = n * (2 * only_b + difference * (1 - difference))
    tiny = np.finfo(np.float64).tiny
    return np.asarray((x - y - n * difference) / np.sqrt(np.maximum(variance, tiny)))


class StreamingMeans:
    """Means of several quantities over images, with intervals, in constant memory.

    Every bootstrap replicate weights each image with a draw from a Poisson distribution of mean 1,
    the limit of sampling images with replacement. All quantities share the weights, so differences
    between them are paired. The result depends only on the seed and the order of the images, not on
    the batches.

    Source: the online bootstrap of Oza and Russell, "Online Bagging and Boosting", AISTATS 2001;
    intervals by percentiles, Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.
    """

    def __init__(self, columns: int, *, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        # Row 0 has equal weights: the mean itself.
        self._sum: Floats = np.zeros((_REPLICATES + 1, columns))
        self._weight: Floats = np.zeros_like(self._sum)

    def add(self, values: ArrayLike) -> None:
        """Add values ``(images, columns)``; NaN if a quantity is not defined for an image."""
        rows = np.asarray(values, dtype=np.float64)
        drawn = self._random.poisson(1.0, size=(len(rows), len(self._sum) - 1))
        weights = np.vstack((np.ones((1, len(rows))), drawn.T))
        known = np.isfinite(rows)
        self._sum += np.dot(weights, np.where(known, rows, 0.0))
        self._weight += np.dot(weights, known)

    def figures(self, level: float = 0.95) -> dict[str, NDArray[Any]]:
        """``mean``, ``low``, ``high`` and ``images``, each ``(columns,)``.

        ``images`` counts those for which a quantity is defined; without any its mean is NaN, and
        with fewer than two its interval.
        """
        ratios, counts = self._ratios(), self._weight[0]
        low, high = _percentiles(ratios[1:], counts, level)
        return {"mean": ratios[0], "low": low, "high": high, "images": counts.astype(np.int64)}

    def differences(self, a: list[int], b: list[int], level: float = 0.95) -> Floats:
        """``(3, pairs)``: means of columns ``a`` minus those of ``b``, low and high; paired."""
        ratios = self._ratios()
        gap = ratios[:, a] - ratios[:, b]
        counts = np.minimum(self._weight[0, a], self._weight[0, b])
        return np.vstack((gap[:1], _percentiles(gap[1:], counts, level)))

    def _ratios(self) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._sum / self._weight


def _percentiles(replicates: Floats, counts: Floats, level: float) -> Floats:
    """``(2, columns)``; NaN for fewer than two images."""
    level = read(PartOf, level, "level")
    out = np.full((2, replicates.shape[1]), np.nan)
    enough = counts >= 2
    ends = ((1 - level) / 2, (1 + level) / 2)
    # With few images a replicate may have only zero weights; it is ignored.
    out[:, enough] = np.nanquantile(replicates[:, enough], ends, axis=0)
    return out
