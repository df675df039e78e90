"""How sure a figure's points are."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tokenred.analysis.level import check_level
from tokenred.core.errors import InputError

__all__ = ["student", "wilson"]


def wilson(percent: float, images: float, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share of images, in percent.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", Journal
    of the American Statistical Association 22, 1927.

    Args:
        percent: of the images that are right, 0 to 100.
        images: how many there are.
        level: nominal coverage.

    Raises:
        InputError: for a share or a number of images that is none.
    """
    from scipy.stats import norm

    check_level(level)
    if not (0 <= percent <= 100 and images >= 1):
        raise InputError(
            f"expected a percentage of at least one image, got {percent} of {images}; the "
            "accuracies of a frame are percent."
        )
    p, z2 = percent / 100, float(norm.ppf((1 + level) / 2)) ** 2
    middle = (p + z2 / (2 * images)) / (1 + z2 / images)
    half = math.sqrt(z2 * (p * (1 - p) / images + z2 / (4 * images**2))) / (1 + z2 / images)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def student(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of independent runs, such as seeds.

    Raises:
        InputError: for fewer than two values.
    """
    from scipy.stats import t

    check_level(level)
    n = len(values)
    if n < 2:
        raise InputError(f"expected at least two runs, got {n}; one says nothing of the spread.")
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(t.ppf((1 + level) / 2, n - 1)) * spread / math.sqrt(n)
    return mean - half, mean + half
