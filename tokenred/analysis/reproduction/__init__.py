"""The GTP paper's experiments: run again, and set beside what was published."""

from __future__ import annotations

from tokenred.analysis.reproduction.experiments import EXPERIMENTS, Experiment
from tokenred.analysis.reproduction.results import Reproduction
from tokenred.analysis.reproduction.running import reproduce

__all__ = ["EXPERIMENTS", "Experiment", "Reproduction", "reproduce"]
