"""Measuring: accuracy, paired differences, and time against the dense model."""

from __future__ import annotations

from tokenred.analysis.measure.accuracy.evaluating import Evaluation, evaluate
from tokenred.analysis.measure.intervals.paired import Interval, paired_difference, paired_limits
from tokenred.analysis.measure.intervals.resampling import Estimate, bootstrap_interval
from tokenred.analysis.measure.machine import describe_machine, weights_digest
from tokenred.analysis.measure.speed.timing import Benchmark, Timing, benchmark

__all__ = [
    "Benchmark",
    "Estimate",
    "Evaluation",
    "Interval",
    "Timing",
    "benchmark",
    "bootstrap_interval",
    "describe_machine",
    "evaluate",
    "paired_difference",
    "paired_limits",
    "weights_digest",
]
