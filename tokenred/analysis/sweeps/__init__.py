"""Sweeps: speed over models, strategies, batch, image size, number type, compiler, threads."""

from __future__ import annotations

from tokenred.analysis.sweeps.cells import Cell
from tokenred.analysis.sweeps.log import read_results
from tokenred.analysis.sweeps.results import Sweep
from tokenred.analysis.sweeps.running import sweep

__all__ = ["Cell", "Sweep", "read_results", "sweep"]
