"""Counts that increase or decrease with depth."""

from typing import Annotated

from annotated_types import Ge, Le

from tokenred.core.values import Count
from tokenred.strategies.schedule import Schedule, ScheduleContext, schedules, spread


@schedules.register("Linear")
class Linear(Schedule):
    """Counts that increase or decrease linearly around r (ToMe's schedule).

    Args:
        r: average number of tokens removed per block, ≥ 0.
        inflection: −1 for 2r down to 0, 0 for constant, 1 for 0 up to 2r.
    """

    r: Count
    inflection: Annotated[float, Ge(-1), Le(1)] = 0.0

    def scaled(self, share: float, context: ScheduleContext) -> tuple[int, ...]:
        slope = 2 * self.inflection / max(1, context.depth - 1)
        weights = [1 - self.inflection + slope * layer for layer in range(context.depth)]
        return spread(self, weights, share, context)

    def count(self, layer: int, tokens: int, context: ScheduleContext) -> int:
        low = int(self.r * (1 - self.inflection))
        high = 2 * self.r - low
        return int(low + (high - low) * layer / max(1, context.depth - 1))
