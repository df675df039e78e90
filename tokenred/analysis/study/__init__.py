"""Studies: ablation grids, the store of their results, and the engines that run them."""

from __future__ import annotations

from tokenred.analysis.study.cell import EngineError, StudyInterruptedError
from tokenred.analysis.study.database import StoreError
from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.metrics import Context, list_metrics, register_metric
from tokenred.analysis.study.store import Store
from tokenred.analysis.study.study import Study

__all__ = [
    "Context",
    "EngineError",
    "Grid",
    "Store",
    "StoreError",
    "Study",
    "StudyInterruptedError",
    "list_metrics",
    "register_metric",
]
