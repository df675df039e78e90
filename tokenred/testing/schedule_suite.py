"""The promises of a schedule."""

from dataclasses import replace

from hypothesis import reject

from tokenred.core.errors import ScheduleError, shown
from tokenred.strategies.schedule import Schedule, ScheduleContext, schedules
from tokenred.testing import draw
from tokenred.testing.suite import Suite, require


def check_schedule(schedule: Schedule | str, *, max_examples: int = 25) -> None:
    """Check that a schedule keeps its contract, on models of any depth and number of tokens.

    There is one integer per block, never more than can be removed there, and the same each time. A
    request that cannot be met is refused with a ScheduleError that repeats it; a schedule that
    every model refuses fails.

    Args:
        schedule: an instance, or a registered name.
        max_examples: as for `check_scorer`.

    Raises:
        AssertionError: with the broken promise and the smallest example found.
    """
    suite = _ScheduleSuite(schedules.create(schedule), max_examples)
    promise = "one possible count per block, on models that it does not refuse"
    suite.holds(promise, draw.contexts(), suite.counts)
    if suite.part.traits.deterministic:
        promise = "deterministic: the same model, the same counts"
        suite.holds(promise, draw.contexts(), suite.twice)
    suite.tell()


class _ScheduleSuite(Suite[Schedule, tuple[int, ...]]):
    kind = "schedule"

    def resolved(self, context: ScheduleContext) -> tuple[int, ...]:
        """The counts; skips an example that is refused."""
        try:
            return self.part.resolve(context)
        except ScheduleError as error:
            require(str(error).strip(), "the ScheduleError has no message")
            self.refusal = str(error)
            reject()

    def counts(self, context: ScheduleContext) -> None:
        # Where requests are capped, too many tokens are no reason to refuse.
        for caps in (True, False):
            self.possible(replace(context, caps=caps))

    def possible(self, context: ScheduleContext) -> None:
        counts = self.resolved(context)
        require(isinstance(counts, tuple), f"expected a tuple of counts, got {shown(counts)}")
        told = f"{len(counts)} counts for {context.depth} blocks: {counts}"
        require(len(counts) == context.depth, told)
        tokens = context.patches
        for layer, count in enumerate(counts):
            require(type(count) is int, f"block {layer}: expected a Python int, got {shown(count)}")
            most = max(0, context.limit(tokens))
            require(
                0 <= count <= most,
                f"block {layer}: {count} of {tokens} tokens removed, expected 0 to {most}",
            )
            tokens -= count - (context.added(layer) if count else 0)

    def twice(self, context: ScheduleContext) -> None:
        one, other = self.resolved(context), self.resolved(context)
        require(one == other, f"called twice: {one} and {other}")
