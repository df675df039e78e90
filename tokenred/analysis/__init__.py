"""Analysis: measure accuracy and speed, compare strategies, draw the figures of a paper.

Everything here is loaded when it is first used: pandas, SciPy and seaborn take a while.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenred.analysis.baseline_models import baselines as baselines
    from tokenred.analysis.comparison import compare as compare
    from tokenred.analysis.lower_resolution import LowerResolution as LowerResolution
    from tokenred.analysis.measure.accuracy.evaluating import Evaluation as Evaluation
    from tokenred.analysis.measure.accuracy.evaluating import evaluate as evaluate
    from tokenred.analysis.measure.accuracy.evaluating import evaluate_together as evaluate_together
    from tokenred.analysis.measure.intervals.paired import Interval as Interval
    from tokenred.analysis.measure.intervals.paired import paired_difference as paired_difference
    from tokenred.analysis.measure.intervals.paired import paired_limits as paired_limits
    from tokenred.analysis.measure.intervals.resampling import Estimate as Estimate
    from tokenred.analysis.measure.intervals.resampling import (
        bootstrap_interval as bootstrap_interval,
    )
    from tokenred.analysis.measure.machine import describe_machine as describe_machine
    from tokenred.analysis.measure.machine import weights_digest as weights_digest
    from tokenred.analysis.measure.speed.adaptive import AdaptiveCost as AdaptiveCost
    from tokenred.analysis.measure.speed.adaptive import adaptive_cost as adaptive_cost
    from tokenred.analysis.measure.speed.memory import PeakMemory as PeakMemory
    from tokenred.analysis.measure.speed.memory import peak_memory as peak_memory
    from tokenred.analysis.measure.speed.split import time_split as time_split
    from tokenred.analysis.measure.speed.splits import TimeSplit as TimeSplit
    from tokenred.analysis.measure.speed.timing import benchmark as benchmark
    from tokenred.analysis.measure.speed.timings import Benchmark as Benchmark
    from tokenred.analysis.measure.speed.timings import Timing as Timing
    from tokenred.analysis.measure.tokens.agreements import Agreement as Agreement
    from tokenred.analysis.measure.tokens.agreements import agreement as agreement
    from tokenred.analysis.measure.tokens.image_graphs import ImageGraph as ImageGraph
    from tokenred.analysis.measure.tokens.image_graphs import image_graph as image_graph
    from tokenred.analysis.measure.tokens.smoothing import Oversmoothing as Oversmoothing
    from tokenred.analysis.measure.tokens.smoothing import oversmoothing as oversmoothing
    from tokenred.analysis.measure.tokens.token_graphs import GraphStatistics as GraphStatistics
    from tokenred.analysis.measure.tokens.token_graphs import graph_statistics as graph_statistics
    from tokenred.analysis.pictures import trace_picture as trace_picture
    from tokenred.analysis.plots.agreements import agreement_map as agreement_map
    from tokenred.analysis.plots.break_even import break_even_chart as break_even_chart
    from tokenred.analysis.plots.break_even import break_even_points as break_even_points
    from tokenred.analysis.plots.canvas import save_figure as save_figure
    from tokenred.analysis.plots.graphs import draw_graph as draw_graph
    from tokenred.analysis.plots.graphs import graph_panels as graph_panels
    from tokenred.analysis.plots.graphs import in_degree_map as in_degree_map
    from tokenred.analysis.plots.heat_maps import heat_map as heat_map
    from tokenred.analysis.plots.lines import metric_lines as metric_lines
    from tokenred.analysis.plots.paper import read_published as read_published
    from tokenred.analysis.plots.scorers import scorer_comparison as scorer_comparison
    from tokenred.analysis.plots.smoothing import smoothing_curves as smoothing_curves
    from tokenred.analysis.plots.tables import graph_table as graph_table
    from tokenred.analysis.plots.tables import tabulate as tabulate
    from tokenred.analysis.plots.tables import theta_table as theta_table
    from tokenred.analysis.plots.token_pictures import show_tokens as show_tokens
    from tokenred.analysis.plots.tradeoffs import tradeoff as tradeoff
    from tokenred.analysis.reporting.writing import report as report
    from tokenred.analysis.reproduction.results import Reproduction as Reproduction
    from tokenred.analysis.reproduction.running import reproduce as reproduce
    from tokenred.analysis.results import Comparison as Comparison
    from tokenred.analysis.study.errors import StudyInterruptedError as StudyInterruptedError
    from tokenred.analysis.study.grid import Grid as Grid
    from tokenred.analysis.study.metrics import list_metrics as list_metrics
    from tokenred.analysis.study.metrics import register_metric as register_metric
    from tokenred.analysis.study.store import Store as Store
    from tokenred.analysis.study.study import Study as Study
    from tokenred.analysis.sweeps.results import Sweep as Sweep
    from tokenred.analysis.sweeps.running import sweep as sweep
    from tokenred.strategies.specs import Spec as Spec
    from tokenred.strategies.specs import at_budget as at_budget
    from tokenred.strategies.specs import parse_spec as parse_spec
    from tokenred.strategies.specs import same_budget as same_budget

# Public name -> the module it comes from, as seen from here.
# No module bears the name of a function in it.
_HOMES = {
    "AdaptiveCost": "measure.speed.adaptive",
    "Agreement": "measure.tokens.agreements",
    "Benchmark": "measure.speed.timings",
    "Comparison": "results",
    "Estimate": "measure.intervals.resampling",
    "Evaluation": "measure.accuracy.evaluating",
    "GraphStatistics": "measure.tokens.token_graphs",
    "Grid": "study.grid",
    "ImageGraph": "measure.tokens.image_graphs",
    "Interval": "measure.intervals.paired",
    "LowerResolution": "lower_resolution",
    "Oversmoothing": "measure.tokens.smoothing",
    "PeakMemory": "measure.speed.memory",
    "Reproduction": "reproduction.results",
    "Spec": ".strategies.specs",
    "Store": "study.store",
    "Study": "study.study",
    "StudyInterruptedError": "study.errors",
    "Sweep": "sweeps.results",
    "TimeSplit": "measure.speed.splits",
    "Timing": "measure.speed.timings",
    "adaptive_cost": "measure.speed.adaptive",
    "agreement": "measure.tokens.agreements",
    "agreement_map": "plots.agreements",
    "at_budget": ".strategies.specs",
    "baselines": "baseline_models",
    "benchmark": "measure.speed.timing",
    "bootstrap_interval": "measure.intervals.resampling",
    "break_even_chart": "plots.break_even",
    "break_even_points": "plots.break_even",
    "compare": "comparison",
    "describe_machine": "measure.machine",
    "draw_graph": "plots.graphs",
    "evaluate": "measure.accuracy.evaluating",
    "evaluate_together": "measure.accuracy.evaluating",
    "graph_panels": "plots.graphs",
    "graph_statistics": "measure.tokens.token_graphs",
    "graph_table": "plots.tables",
    "heat_map": "plots.heat_maps",
    "image_graph": "measure.tokens.image_graphs",
    "in_degree_map": "plots.graphs",
    "list_metrics": "study.metrics",
    "metric_lines": "plots.lines",
    "oversmoothing": "measure.tokens.smoothing",
    "paired_difference": "measure.intervals.paired",
    "paired_limits": "measure.intervals.paired",
    "parse_spec": ".strategies.specs",
    "peak_memory": "measure.speed.memory",
    "read_published": "plots.paper",
    "register_metric": "study.metrics",
    "report": "reporting.writing",
    "reproduce": "reproduction.running",
    "same_budget": ".strategies.specs",
    "save_figure": "plots.canvas",
    "scorer_comparison": "plots.scorers",
    "show_tokens": "plots.token_pictures",
    "smoothing_curves": "plots.smoothing",
    "sweep": "sweeps.running",
    "tabulate": "plots.tables",
    "theta_table": "plots.tables",
    "time_split": "measure.speed.split",
    "trace_picture": "pictures",
    "tradeoff": "plots.tradeoffs",
    "weights_digest": "measure.machine",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tokenred.analysis' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
