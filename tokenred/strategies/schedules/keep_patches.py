"""A share of the single-patch tokens."""

import math

from tokenred.core.values import Blocks, Share
from tokenred.strategies.schedule import Schedule, ScheduleContext, exact, layers_of, schedules


@schedules.register("KeepPatches")
class KeepPatches(Schedule):
    """Keep ⌊ρm⌋ of the m single-patch tokens; tokens added by a reduction last until the next one.

    Args:
        ratio: ρ.
        layers: blocks, ascending; None for the quarters of the depth.
    """

    keeps = "ratio"

    ratio: Share = 0.7
    layers: Blocks | None = None

    def count(self, layer: int, tokens: int, context: ScheduleContext) -> int:
        layers = layers_of(self, self.layers, context.depth)
        if layer not in layers:
            return 0
        earlier = [before for before in layers if before < layer]
        patches = tokens - (context.added(earlier[-1]) if earlier else 0)
        return tokens - max(1, math.floor(exact(self.ratio) * patches))
