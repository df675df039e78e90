"""Measurements: accuracy, speed, memory, and what happens to tokens; each returns one result."""

from __future__ import annotations
