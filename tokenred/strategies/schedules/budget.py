"""What a budget of GMACs allows."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from tokenred.core.errors import ScheduleError
from tokenred.core.values import Blocks, Positive
from tokenred.strategies.schedule import Room, Schedule, layers_of, schedules
from tokenred.strategies.schedules.keep_ratio import KeepRatio
from tokenred.strategies.schedules.per_layer import PerLayer

__all__ = ["Budget"]


@schedules.register("Budget")
class Budget(Schedule):
    """As many tokens as fit a budget of GMACs: the largest cost that does not exceed it.

    Args:
        gmacs: the budget for one image, in GMACs as `tokenred.gmacs` counts them.
        shape: ``"constant"`` removes evenly in all blocks (GTP, ToMe), ``"ratio"`` keeps a share
            at some blocks (EViT).
        layers: the blocks, ascending; None for all (constant) or the quarters (ratio).
    """

    gmacs: Positive
    shape: Literal["constant", "ratio"] = "constant"
    layers: Blocks | None = None

    def resolve(self, room: Room) -> tuple[int, ...]:
        if room.gmacs is None:
            raise ScheduleError(f"{self!r} needs a model to cost; wrap one with it.")
        cost = room.gmacs
        low, high = 0, room.patches - 1  # the fewest removals within the budget lie in [low, high]
        if cost(self._at(high, room)) > self.gmacs:
            raise ScheduleError(
                f"{self!r}: even with all but a token gone this model costs "
                f"{cost(self._at(high, room)):.4g} GMACs, and {cost(self._at(0, room)):.4g} with "
                "nothing removed. Choose a budget between the two."
            )
        while low < high:
            middle = (low + high) // 2
            if cost(self._at(middle, room)) <= self.gmacs:
                high = middle
            else:
                low = middle + 1
        return self._at(low, room)

    def _at(self, step: int, room: Room) -> tuple[int, ...]:
        """The counts at one notch of the dial: 0 removes nothing, ``patches − 1`` the most."""
        if self.shape == "ratio":
            share = float(Fraction(room.patches - step, room.patches))
            return KeepRatio(share, self.layers).resolve(room)
        layers = self.layers or tuple(range(room.depth))
        layers_of(self, layers, room.depth)
        counts = [0] * room.depth
        for place, layer in enumerate(layers):
            counts[layer] = step // len(layers) + (place < step % len(layers))
        return PerLayer(tuple(counts)).resolve(room)
