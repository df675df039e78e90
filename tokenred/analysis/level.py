"""Levels of confidence."""

from __future__ import annotations

from tokenred.core.errors import ConfigError

__all__ = ["check_level"]


def check_level(level: float) -> None:
    """Refuse a level that is none.

    Raises:
        ConfigError: unless it lies between 0 and 1.
    """
    if not 0 < level < 1:
        raise ConfigError(f"expected a level between 0 and 1, got {level!r}; 0.95 is usual.")
