"""Two models on the same images: how far apart their accuracies are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from tokenred.core.errors import ConfigError, InputError

__all__ = ["Interval", "paired_difference"]


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

    With ``x`` images that only a gets right and ``y`` that only b does, of n, the interval is
    Wald's after one image is added to each of x and y (n + 2 in all). So it never shrinks to a
    point, not even for two models that agree everywhere.

    Source: Bonett and Price, "Adjusted Wald Confidence Interval for a Difference of Binomial
    Proportions Based on Paired Data", Journal of Educational and Behavioral Statistics 37(4),
    2012. The test: McNemar, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12, 1947, in its exact (binomial) form.

    Args:
        correct_a, correct_b: ``(n,)`` of bool (or 0 and 1), the same images in the same order.
        level: nominal coverage, between 0 and 1.

    Raises:
        InputError: for arrays that are empty, of different shape, or not of 0 and 1.
        ConfigError: for another level.
    """
    if not 0 < level < 1:
        raise ConfigError(f"expected a level between 0 and 1, got {level!r}; 0.95 is usual.")
    a, b = _flags("correct_a", correct_a), _flags("correct_b", correct_b)
    if a.shape != b.shape:
        raise InputError(
            f"expected two arrays over the same images, got {a.size} and {b.size} of them; "
            "evaluate both models on the same data."
        )
    n, x, y = a.size, int((a & ~b).sum()), int((~a & b).sum())
    p, q = (x + 1) / (n + 2), (y + 1) / (n + 2)
    z = float(stats.norm.ppf((1 + level) / 2))
    half = z * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return Interval(
        difference=(x - y) / n,
        low=max(-1.0, p - q - half),
        high=min(1.0, p - q + half),
        level=level,
        only_a=x,
        only_b=y,
        p_value=float(stats.binomtest(x, x + y).pvalue) if x + y else 1.0,
    )


def _flags(name: str, values: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0 or not np.isin(array, (0, 1)).all():
        raise InputError(
            f"expected {name} as a non-empty row of true and false, one an image, got "
            f"shape {array.shape}, dtype {array.dtype}; pass Evaluation.correct."
        )
    return array.astype(np.bool_)
