"""The promises of a schedule."""

from __future__ import annotations

from tokenred.core.errors import ScheduleError
from tokenred.strategies.schedule import Schedule, ScheduleContext, schedules
from tokenred.testing import draw
from tokenred.testing.suite import Promises, require

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
    suite = _ScheduleSuite(schedules.create(schedule), max_examples, derandomize)
    suite.holds("one count a block, which that block can give", draw.contexts(), suite.counts)
    suite.holds("what is refused is refused with a ScheduleError", draw.contexts(), suite.refusal)
    if suite.part.traits.deterministic:
        promise = "deterministic: the same model, the same counts"
        suite.holds(promise, draw.contexts(), suite.twice)


class _ScheduleSuite(Promises[Schedule]):
    kind = "schedule"

    def resolved(self, context: ScheduleContext) -> tuple[int, ...] | None:
        """The counts, or None for a refusal."""
        try:
            return self.part.resolve(context)
        except ScheduleError:
            return None

    def counts(self, context: ScheduleContext) -> None:
        counts = self.resolved(context)
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

    def refusal(self, context: ScheduleContext) -> None:
        try:
            self.part.resolve(context)
        except ScheduleError as error:
            require(bool(str(error).strip()), "the ScheduleError says nothing")

    def twice(self, context: ScheduleContext) -> None:
        one, other = self.resolved(context), self.resolved(context)
        require(one == other, f"asked twice: {one} and {other}")
