"""Figures for papers; matplotlib and seaborn are imported when one is drawn."""

from __future__ import annotations

from tokenred.analysis.plots.canvas import save_figure
from tokenred.analysis.plots.heat_maps import heat_map
from tokenred.analysis.plots.lines import metric_lines
from tokenred.analysis.plots.paper import read_published
from tokenred.analysis.plots.scorers import scorer_comparison
from tokenred.analysis.plots.tables import graph_table, tabulate, theta_table
from tokenred.analysis.plots.token_pictures import show_tokens
from tokenred.analysis.plots.tradeoffs import tradeoff

__all__ = [
    "graph_table",
    "heat_map",
    "metric_lines",
    "read_published",
    "save_figure",
    "scorer_comparison",
    "show_tokens",
    "tabulate",
    "theta_table",
    "tradeoff",
]
