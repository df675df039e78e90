"""The same number in every block, until few tokens are left."""

import math

from tokenred.core.values import Blocks, Count, Share
from tokenred.strategies.schedule import Schedule, ScheduleContext, exact, layers_of, schedules


@schedules.register("UntilFew")
class UntilFew(Schedule):
    """Remove tokens until ``least`` are left, prefix included (MCTF's counts).

    Args:
        r: number removed in each of `layers`, at most half of the image tokens; or a share of the
            image tokens in (0, 1), rounded down.
        layers: blocks, ascending; None for all but the first.
        least: the number of tokens that remain.
    """

    r: Count | Share = 16
    layers: Blocks | None = None
    least: Count = 10

    def count(self, layer: int, tokens: int, context: ScheduleContext) -> int:
        layers = tuple(range(1, context.depth)) if self.layers is None else self.layers
        if layer not in layers_of(self, layers, context.depth):
            return 0
        asked = self.r if isinstance(self.r, int) else math.floor(exact(self.r) * tokens)
        room = tokens + context.prefix - self.least
        return max(0, min(asked, room, tokens // 2))
