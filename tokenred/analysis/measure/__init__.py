"""Measuring: accuracy, paired differences, and time against the dense model."""

from __future__ import annotations

from tokenred.analysis.measure.accuracy import Evaluation, evaluate
from tokenred.analysis.measure.machine import describe_machine, weights_digest
from tokenred.analysis.measure.paired import Interval, paired_difference
from tokenred.analysis.measure.timing import Benchmark, Timing, benchmark

__all__ = [
    "Benchmark",
    "Evaluation",
    "Interval",
    "Timing",
    "benchmark",
    "describe_machine",
    "evaluate",
    "paired_difference",
    "weights_digest",
]
