"""`check_schedule`: every schedule of the library passes, every planted fault is found."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tokenred.strategies.base import scorers
from tokenred.strategies.schedule import Schedule, ScheduleContext, schedules
from tokenred.testing import check_schedule

ARGUMENTS: dict[str, dict[str, Any]] = {
    "Budget": {"gmacs": 700.0},
    "Constant": {"P": 3},
    "Linear": {"r": 3, "inflection": -1.0},
    "PerLayer": {"counts": (4, 0, 2)},
}
NAMES = [entry.name for entry in schedules if entry.source.startswith("tokenred.")]


class Faulty(Schedule):
    def resolve(self, context: ScheduleContext) -> tuple[int, ...]:
        return (0,) * context.depth


class TooMany(Faulty):
    def resolve(self, context: ScheduleContext) -> tuple[int, ...]:
        return (context.patches,) + (0,) * (context.depth - 1)


class Backwards(Faulty):
    def resolve(self, context: ScheduleContext) -> tuple[int, ...]:
        return (-1,) * context.depth


class TooShort(Faulty):
    def resolve(self, context: ScheduleContext) -> tuple[int, ...]:
        return ()


class Halves(Faulty):
    def resolve(self, context: ScheduleContext) -> tuple[int, ...]:
        return (0.5,) * context.depth  # type: ignore[return-value]


class Listed(Faulty):
    def resolve(self, context: ScheduleContext) -> tuple[int, ...]:
        return [0] * context.depth  # type: ignore[return-value]


class Crashes(Faulty):
    def resolve(self, context: ScheduleContext) -> tuple[int, ...]:
        return (1 // (context.patches - 1),) * context.depth


COUNTER = itertools.count()


class Changes(Faulty):
    def resolve(self, context: ScheduleContext) -> tuple[int, ...]:
        first = next(COUNTER) % 2 if context.limit(context.patches) > 0 else 0
        return (first,) + (0,) * (context.depth - 1)


FAULTS = [
    (TooMany(), "one count a block", "block 0: 1 of 1 tokens should go, between 0 and 0 can"),
    (Backwards(), "one count a block", "block 0: -1 of 1 tokens should go"),
    (TooShort(), "one count a block", "0 counts for 1 blocks"),
    (Halves(), "one count a block", "expected a Python int, got 0.5"),
    (Listed(), "one count a block", "expected a tuple of counts"),
    (Crashes(), "one count a block", "ZeroDivisionError"),
    (Changes(), "deterministic: the same model", "asked twice|tried again"),
]


@pytest.mark.parametrize("name", NAMES)
def test_every_schedule_keeps_its_promises(name: str) -> None:
    check_schedule(schedules.create(name, **ARGUMENTS.get(name, {})), max_examples=50)


@pytest.mark.parametrize(
    ("schedule", "promise", "found"), FAULTS, ids=[type(fault[0]).__name__ for fault in FAULTS]
)
def test_a_planted_fault_is_found(schedule: Schedule, promise: str, found: str) -> None:
    message = rf"(?s)schedule {type(schedule).__name__}\(\) breaks .*{promise}.*(?:{found})"
    with pytest.raises(AssertionError, match=message):
        check_schedule(schedule)


def test_another_kind_of_part_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a schedule"):
        check_schedule(scorers.create("Random"))  # type: ignore[arg-type]
