"""A given number of tokens to keep."""

import math
from typing import Annotated, Literal

from annotated_types import MinLen

from tokenred.core.errors import ScheduleError
from tokenred.core.values import Blocks, Count, Share, Size
from tokenred.strategies.schedule import (
    Schedule,
    ScheduleContext,
    check_each,
    exact,
    layers_of,
    schedules,
)

Keep = Share | Annotated[tuple[Size, ...], MinLen(2)] | tuple[Share]
"""A share of the initial tokens, alone or in a list of one, or several counts."""


def stretched(
    counts: tuple[int, ...], made_for: int | None, layer: int, depth: int, patches: int
) -> int:
    """The count for a block, from a list made for a model of ``made_for`` image tokens.

    Raises:
        ScheduleError: for a list that is used unchanged and does not have one number for each
            block.
    """
    if made_for is None:
        if len(counts) != depth:
            raise ScheduleError(
                f"{len(counts)} counts for {depth} blocks; pass one for each block."
            )
        return counts[layer]
    place = layer if len(counts) == depth else round(layer * (len(counts) - 1) / max(1, depth - 1))
    return max(1, counts[place] * patches // made_for)


@schedules.register("KeepCount")
class KeepCount(Schedule):
    """Keep K tokens after some blocks (Haurum et al., ICCVW 2023).

    A block with fewer than K tokens, or with K = 0, removes none.

    Args:
        keep: one share ρ of the N0 tokens at the start, ``K = ⌊ρN0⌋, ⌊ρ²N0⌋, …``; or K for each of
            `layers`.
        layers: blocks, ascending; None for the quarters of the depth, ``"all"`` for every block.
        earliest: blocks before this one keep everything.
        made_for: image tokens of the model that counts for all blocks were made for; for other
            models they are stretched over the blocks and scaled. None uses them unchanged.
    """

    keeps = "keep"

    keep: Keep = 0.7
    layers: Blocks | Literal["all"] | None = None
    made_for: Size | None = None
    earliest: Count = 0

    def __post_init__(self) -> None:
        if isinstance(self.keep, tuple) and len(self.keep) == 1:
            object.__setattr__(self, "keep", self.keep[0])

    def count(self, layer: int, tokens: int, context: ScheduleContext) -> int:
        layers = layers_of(self, self.layers, context.depth)
        layers = tuple(block for block in layers if block >= self.earliest)
        if layer not in layers:
            return 0
        stage = layers.index(layer)
        if isinstance(self.keep, tuple) and self.made_for is not None:
            kept = stretched(
                tuple(map(int, self.keep)), self.made_for, stage, len(layers), context.patches
            )
        elif isinstance(self.keep, tuple):
            check_each(self, "keep", layers)
            kept = int(self.keep[stage])
        else:
            kept = math.floor(exact(self.keep) ** (stage + 1) * context.patches)
        return max(0, tokens - kept) if kept else 0
