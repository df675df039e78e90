"""Two models on the same images: how far apart their accuracies are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from tokenred.analysis.level import check_level
from tokenred.core.errors import InputError

__all__ = ["Interval", "paired_difference", "paired_limits"]

# Halvings of an interval of length 2, until its ends are neighbours in double precision.
_HALVINGS = 60


@dataclass(frozen=True)
class Interval:
    """The difference of two accuracies on the same images, as proportions in −1 … 1.

    Attributes:
        difference: accuracy of a minus accuracy of b.
        low, high: the interval.
        level: its nominal coverage.
        only_a, only_b: images that only a, or only b, gets right; the others say nothing.
        p_value: of McNemar's exact test that the two are equally accurate.
    """

    difference: float
    low: float
    high: float
    level: float
    only_a: int
    only_b: int
    p_value: float


def paired_difference(correct_a: ArrayLike, correct_b: ArrayLike, level: float = 0.95) -> Interval:
    """How much more accurate model a is than model b, both tried on the same images.

    The interval is that of `paired_limits`. The test: McNemar, "Note on the sampling error of the
    difference between correlated proportions or percentages", Psychometrika 12, 1947, in its exact
    (binomial) form.

    Args:
        correct_a, correct_b: ``(n,)`` of bool (or 0 and 1), the same images in the same order.
        level: nominal coverage, between 0 and 1.

    Raises:
        InputError: for arrays that are empty, of different shape, or not of 0 and 1.
        ConfigError: for another level.
    """
    check_level(level)
    a, b = _flags("correct_a", correct_a), _flags("correct_b", correct_b)
    if a.shape != b.shape:
        raise InputError(
            f"expected two arrays over the same images, got {a.size} and {b.size} of them; "
            "evaluate both models on the same data."
        )
    n, x, y = a.size, int((a & ~b).sum()), int((~a & b).sum())
    low, high = paired_limits(x, y, n, level)
    return Interval(
        difference=(x - y) / n,
        low=float(low),
        high=float(high),
        level=level,
        only_a=x,
        only_b=y,
        p_value=float(stats.binomtest(x, x + y).pvalue) if x + y else 1.0,
    )


def paired_limits(
    only_a: ArrayLike, only_b: ArrayLike, images: ArrayLike, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tango's score interval for the difference of two paired proportions, many at once.

    It holds all differences that a score test does not reject. Its coverage stays near the nominal
    one where few images tell the models apart, where Wald's interval is too narrow and its adjusted
    forms too wide; below about four such images none can, since the counts are whole numbers. It is
    never a point, not even for two models that agree everywhere.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for
    the paired-sample design", Statistics in Medicine 17, 1998.

    Args:
        only_a, only_b: images that only a, or only b, gets right.
        images: all images, those included.
        level: nominal coverage, between 0 and 1.

    Returns:
        The low and the high ends, of the shape that the arguments broadcast to.

    Raises:
        InputError: for counts that cannot be.
        ConfigError: for another level.
    """
    check_level(level)
    x, y, n = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (only_a, only_b, images)))
    if not ((x >= 0) & (y >= 0) & (n >= 1) & (x + y <= n)).all():
        raise InputError(
            "expected counts from 0 of images that only one model gets right, together no more "
            "than all images, and at least one image; got others."
        )
    z = float(stats.norm.ppf((1 + level) / 2))
    observed = (x - y) / n
    low = _difference_at(z, x, y, n, np.full(x.shape, -1.0), observed)
    high = _difference_at(-z, x, y, n, observed, np.full(x.shape, 1.0))
    return low, high


def _difference_at(
    score: float,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    n: NDArray[np.float64],
    below: NDArray[np.float64],
    above: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The difference with this score, between two ends; the score falls as it grows."""
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        higher = _score(middle, x, y, n) > score
        below, above = np.where(higher, middle, below), np.where(higher, above, middle)
    return np.asarray((below + above) / 2)


def _score(
    difference: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    n: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How many standard errors what was seen lies above a supposed difference."""
    # The most likely share of "only b" under that difference solves a quadratic equation.
    linear = (2 * n - x + y) * difference - x - y
    constant = -y * difference * (1 - difference)
    only_b = (np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0)) - linear) / (4 * n)
    variance = n * (2 * only_b + difference * (1 - difference))
    tiny = np.finfo(np.float64).tiny
    return np.asarray((x - y - n * difference) / np.sqrt(np.maximum(variance, tiny)))


def _flags(name: str, values: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0 or not np.isin(array, (0, 1)).all():
        raise InputError(
            f"expected {name} as a non-empty row of true and false, one an image, got "
            f"shape {array.shape}, dtype {array.dtype}; pass Evaluation.correct."
        )
    return array.astype(np.bool_)
