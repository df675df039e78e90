"""Levels of confidence."""

from __future__ import annotations

from tokenred.core.values import PartOf, read

__all__ = ["check_level"]


def check_level(level: float) -> None:
    """Refuse a level that is none.

    Raises:
        ConfigError: unless it lies between 0 and 1.
    """
    read(PartOf, level, "level")
