"""Engines: where the cells of a study run."""

from __future__ import annotations

from tokenred.analysis.study.engines.base import Engine, Tasks
from tokenred.analysis.study.engines.pick import ENGINES, pick_engine

__all__ = ["ENGINES", "Engine", "Tasks", "pick_engine"]
