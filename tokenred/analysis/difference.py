"""A paired difference as columns of a table."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["difference_columns"]


def difference_columns(found: Mapping[str, float]) -> dict[str, float]:
    """The columns of a paired difference.

    Args:
        found: the fields of an `Interval`, in proportions.

    Returns:
        ``difference``, ``difference_low`` and ``difference_high`` in percentage points, and
        ``p_value``.
    """
    return {
        "difference": 100 * found["difference"],
        "difference_low": 100 * found["low"],
        "difference_high": 100 * found["high"],
        "p_value": found["p_value"],
    }
