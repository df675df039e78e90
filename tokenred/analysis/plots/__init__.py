"""Figures for papers; matplotlib and seaborn are imported when one is drawn."""

from __future__ import annotations

from tokenred.analysis.plots.tradeoffs import tradeoff

__all__ = ["tradeoff"]
