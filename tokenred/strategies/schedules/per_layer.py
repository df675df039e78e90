"""A number for each block."""

from __future__ import annotations

from tokenred.core.errors import ScheduleError
from tokenred.core.values import Count
from tokenred.strategies.schedule import Schedule, ScheduleContext, schedules


@schedules.register("PerLayer")
class PerLayer(Schedule):
    """One count for each block; a short list goes on with 0.

    Args:
        counts: tokens removed in blocks 0, 1, …
    """

    counts: tuple[Count, ...]

    def count(self, layer: int, tokens: int, context: ScheduleContext) -> int:
        if len(self.counts) > context.depth:
            raise ScheduleError(
                f"{self!r} names {len(self.counts)} blocks, the model has {context.depth}."
            )
        return self.counts[layer] if layer < len(self.counts) else 0
