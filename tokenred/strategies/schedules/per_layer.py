"""One count per block."""

from tokenred.core.errors import ScheduleError
from tokenred.core.values import Count
from tokenred.strategies.schedule import Schedule, ScheduleContext, schedules, spread


@schedules.register("PerLayer")
class PerLayer(Schedule):
    """One count per block; a short list is padded with 0.

    Args:
        counts: tokens removed in blocks 0, 1, …
    """

    counts: tuple[Count, ...]

    def scaled(self, share: float, context: ScheduleContext) -> tuple[int, ...]:
        weights = [self.count(layer, context.patches, context) for layer in range(context.depth)]
        return spread(self, weights, share, context)

    def count(self, layer: int, tokens: int, context: ScheduleContext) -> int:
        if len(self.counts) > context.depth:
            raise ScheduleError(
                f"{self!r} has {len(self.counts)} counts, but the model has {context.depth} blocks."
            )
        return self.counts[layer] if layer < len(self.counts) else 0
