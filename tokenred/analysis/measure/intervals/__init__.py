"""How sure a figure is: paired differences, and the bootstrap."""

from __future__ import annotations

__all__: list[str] = []
