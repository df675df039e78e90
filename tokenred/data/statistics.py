"""The mean and spread of pixels that images are normalised with."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tokenred.core.errors import ConfigError

__all__ = ["check_statistics"]


def check_statistics(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """Check a mean or a standard deviation given channel by channel.

    Args:
        name: ``"mean"`` or ``"std"``.
        values: one number per colour channel, on the scale where pixels run from 0 to 1.

    Returns:
        The values as floats.

    Raises:
        ConfigError: unless there are three finite numbers, positive for ``"std"``.
    """
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    ok = len(numbers) == 3 and all(math.isfinite(number) for number in numbers)
    if not ok or (name == "std" and min(numbers) <= 0):
        kind = "positive numbers" if name == "std" else "numbers"
        raise ConfigError(
            f"expected {name} as three {kind}, one a colour channel, got {values!r}; pixels run "
            "from 0 to 1 there."
        )
    return numbers
