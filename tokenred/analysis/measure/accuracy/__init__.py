"""Accuracy on labelled images, by one process or several; batches are halved where memory ends."""

from __future__ import annotations

__all__: list[str] = []
