"""Schedules: how many tokens go in each block."""

from tokenred.strategies.schedule import Schedule, ScheduleContext, exact, quarters, schedules
from tokenred.strategies.schedules.budget import Budget
from tokenred.strategies.schedules.constant import Constant
from tokenred.strategies.schedules.keep_ratio import KeepRatio
from tokenred.strategies.schedules.linear import Linear
from tokenred.strategies.schedules.per_layer import PerLayer

__all__ = [
    "Budget",
    "Constant",
    "KeepRatio",
    "Linear",
    "PerLayer",
    "Schedule",
    "ScheduleContext",
    "exact",
    "quarters",
    "schedules",
]
