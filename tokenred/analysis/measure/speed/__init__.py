"""Time and peak memory against the dense model, and where the time of a forward goes."""

from __future__ import annotations

__all__: list[str] = []
