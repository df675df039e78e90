"""The same count in every block."""

from dataclasses import field

from tokenred.core.values import Count
from tokenred.strategies.schedule import Schedule, ScheduleContext, schedules, spread


@schedules.register("Constant")
class Constant(Schedule):
    """The same P in every block (GTP's).

    Args:
        P: tokens removed per block, ≥ 0.
        fit: if a model has too few tokens for P, remove half of them, evenly, instead of refusing.
            Meant for the defaults of recipes. It has no effect if P fits, so it is ignored when
            schedules are compared.
    """

    P: Count
    fit: bool = field(default=False, compare=False)

    def scaled(self, share: float, context: ScheduleContext) -> tuple[int, ...]:
        return spread(self, [1] * context.depth, share, context)  # also where P is 0

    def count(self, layer: int, tokens: int, context: ScheduleContext) -> int:
        if self.fit and self.P * context.depth >= context.patches:
            return context.patches // (2 * context.depth)
        return self.P
