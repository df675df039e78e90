"""The same number in every block."""

from __future__ import annotations

from dataclasses import field

from tokenred.core.values import Count
from tokenred.strategies.schedule import Schedule, ScheduleContext, schedules


@schedules.register("Constant")
class Constant(Schedule):
    """The same P in every block (GTP's).

    Args:
        P: tokens removed in a block, ≥ 0.
        fit: on a model with too few tokens for P, remove half of them, evenly, instead of
            refusing. For the defaults of recipes; wherever P fits, it makes no difference, so it
            does not make two schedules different either.
    """

    P: Count
    fit: bool = field(default=False, compare=False)

    def count(self, layer: int, tokens: int, context: ScheduleContext) -> int:
        if self.fit and self.P * context.depth >= context.patches:
            return context.patches // (2 * context.depth)
        return self.P
