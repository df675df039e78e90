"""The promises of a schedule."""

from __future__ import annotations

from tokenred.core.errors import ScheduleError
from tokenred.strategies.schedule import Schedule, ScheduleContext, schedules
from tokenred.testing import draw
from tokenred.testing.compare import require
from tokenred.testing.runner import Suite

__all__ = ["check_schedule"]


def check_schedule(
    schedule: Schedule | str, *, max_examples: int = 25, derandomize: bool = True
) -> None:
    """Hold a schedule to its contract, on models of any depth and number of tokens.

    One whole number for each block, never more than can go there, and the same each time; what
    cannot be met is refused with a ScheduleError that says what was asked.

    Args:
        schedule: an instance, or a registered name.
        max_examples: examples drawn for each promise.
        derandomize: draw the same examples in every run.

    Raises:
        AssertionError: with the promise that does not hold, and the smallest example found.
    """
    part = schedules.create(schedule)
    suite = Suite("schedule", part, max_examples, derandomize)
    suite.holds("one count a block, which that block can give", draw.rooms(), _counts)
    suite.holds("what is refused is refused with a ScheduleError", draw.rooms(), _refusal)
    if part.traits.deterministic:
        suite.holds("deterministic: the same model, the same counts", draw.rooms(), _twice)


def _resolved(part: Schedule, context: ScheduleContext) -> tuple[int, ...] | None:
    """The counts, or None for a refusal."""
    try:
        return part.resolve(context)
    except ScheduleError:
        return None


def _counts(part: Schedule, context: ScheduleContext) -> None:
    counts = _resolved(part, context)
    if counts is None:
        return
    require(isinstance(counts, tuple), f"expected a tuple of counts, got {counts!r}")
    told = f"{len(counts)} counts for {context.depth} blocks: {counts}"
    require(len(counts) == context.depth, told)
    tokens = context.patches
    for layer, count in enumerate(counts):
        require(
            isinstance(count, int) and not isinstance(count, bool),
            f"block {layer}: expected a Python int, got {count!r}",
        )
        most = max(0, context.limit(tokens))
        require(
            0 <= count <= most,
            f"block {layer}: {count} of {tokens} tokens should go, between 0 and {most} can",
        )
        tokens -= count - (context.extra if count else 0)


def _refusal(part: Schedule, context: ScheduleContext) -> None:
    try:
        part.resolve(context)
    except ScheduleError as error:
        require(bool(str(error).strip()), "the ScheduleError says nothing")


def _twice(part: Schedule, context: ScheduleContext) -> None:
    one, other = _resolved(part, context), _resolved(part, context)
    require(one == other, f"asked twice: {one} and {other}")
