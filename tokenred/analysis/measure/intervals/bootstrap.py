"""Means over images with bootstrap intervals, kept up as the images pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokenred.analysis.level import check_level

__all__ = ["StreamingMeans"]

_FEWEST = 2


class StreamingMeans:
    """Means of several quantities over images, and their intervals, in memory that stays the same.

    Every replicate of the bootstrap weighs each image with its own draw from a Poisson
    distribution of mean 1, which is what drawing images with replacement tends to. All quantities
    share the weights, so differences between them are paired. The result hangs on the seed and the
    order of the images alone, not on how they come in batches.

    Source: the online bootstrap of Oza and Russell, "Online Bagging and Boosting", AISTATS 2001;
    intervals by percentiles, Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.

    Args:
        columns: how many quantities.
        replicates: of the bootstrap.
        seed: of the weights.
    """

    def __init__(self, columns: int, *, replicates: int = 1000, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        # Row 0 weighs all images alike: the mean itself.
        shape = (replicates + 1, columns)
        self._sum: NDArray[np.float64] = np.zeros(shape)
        self._weight: NDArray[np.float64] = np.zeros(shape)

    def add(self, values: ArrayLike) -> None:
        """Count ``(images, columns)`` more; NaN where a quantity is not defined for an image."""
        rows = np.asarray(values, dtype=np.float64)
        replicates = self._sum.shape[0] - 1
        drawn = self._random.poisson(1.0, size=(len(rows), replicates))
        weights = np.vstack((np.ones((1, len(rows))), drawn.T))
        known = np.isfinite(rows)
        self._sum += np.dot(weights, np.where(known, rows, 0.0))
        self._weight += np.dot(weights, known)

    @property
    def counts(self) -> NDArray[np.int64]:
        """``(columns,)`` images for which each quantity is defined."""
        counts: NDArray[np.int64] = self._weight[0].astype(np.int64)
        return counts

    @property
    def means(self) -> NDArray[np.float64]:
        """``(columns,)``; NaN where there is no image."""
        means: NDArray[np.float64] = self._ratios()[0]
        return means

    def intervals(self, level: float = 0.95) -> NDArray[np.float64]:
        """``(2, columns)`` low and high; NaN for fewer than two images.

        Raises:
            ConfigError: for a level that is not between 0 and 1.
        """
        return self._interval(self._ratios()[1:], self.counts, level)

    def differences(self, a: list[int], b: list[int], level: float = 0.95) -> NDArray[np.float64]:
        """``(3, pairs)``: mean of columns ``a`` minus mean of columns ``b``, low and high.

        Paired: both means of a replicate are over the same weighted images.
        """
        ratios = self._ratios()
        gap = ratios[:, a] - ratios[:, b]
        counts = np.minimum(self.counts[a], self.counts[b])
        return np.vstack((gap[:1], self._interval(gap[1:], counts, level)))

    def _ratios(self) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._sum / self._weight

    @staticmethod
    def _interval(
        replicates: NDArray[np.float64], counts: NDArray[np.int64], level: float
    ) -> NDArray[np.float64]:
        check_level(level)
        out = np.full((2, replicates.shape[1]), np.nan)
        enough = counts >= _FEWEST
        ends = ((1 - level) / 2, (1 + level) / 2)
        # A replicate of few images may weigh all of them with 0; it says nothing.
        out[:, enough] = np.nanquantile(replicates[:, enough], ends, axis=0)
        return out
