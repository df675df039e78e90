"""Measuring: functions in, one result out. Accuracy, speed, memory, and what happens to tokens."""

from __future__ import annotations
