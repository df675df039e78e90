"""Analysis: measure accuracy and speed, compare strategies, draw the figures of a paper.

Everything here is loaded when it is first used: pandas, SciPy and seaborn take a while.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenred.analysis.comparison import compare as compare
    from tokenred.analysis.measure.accuracy import Evaluation as Evaluation
    from tokenred.analysis.measure.accuracy import evaluate as evaluate
    from tokenred.analysis.measure.accuracy import evaluate_together as evaluate_together
    from tokenred.analysis.measure.machine import describe_machine as describe_machine
    from tokenred.analysis.measure.machine import weights_digest as weights_digest
    from tokenred.analysis.measure.paired import Interval as Interval
    from tokenred.analysis.measure.paired import paired_difference as paired_difference
    from tokenred.analysis.measure.timing import benchmark as benchmark
    from tokenred.analysis.measure.timings import Benchmark as Benchmark
    from tokenred.analysis.measure.timings import Timing as Timing
    from tokenred.analysis.plots.tradeoffs import tradeoff as tradeoff
    from tokenred.analysis.results import Comparison as Comparison
    from tokenred.analysis.specs import Spec as Spec
    from tokenred.analysis.specs import at_budget as at_budget
    from tokenred.analysis.specs import parse_spec as parse_spec
    from tokenred.analysis.specs import same_budget as same_budget

# Public name -> the module it comes from. No module bears the name of a function in it.
_HOMES = {
    "Benchmark": "measure.timings",
    "Comparison": "results",
    "Evaluation": "measure.accuracy",
    "Interval": "measure.paired",
    "Spec": "specs",
    "Timing": "measure.timings",
    "at_budget": "specs",
    "benchmark": "measure.timing",
    "compare": "comparison",
    "describe_machine": "measure.machine",
    "evaluate": "measure.accuracy",
    "evaluate_together": "measure.accuracy",
    "paired_difference": "measure.paired",
    "parse_spec": "specs",
    "same_budget": "specs",
    "tradeoff": "plots.tradeoffs",
    "weights_digest": "measure.machine",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tokenred.analysis' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"tokenred.analysis.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
