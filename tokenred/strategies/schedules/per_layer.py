"""A number for each block."""

from __future__ import annotations

from tokenred.core.errors import ScheduleError
from tokenred.core.values import Count
from tokenred.strategies.schedule import Room, Schedule, schedules

__all__ = ["PerLayer"]


@schedules.register("PerLayer")
class PerLayer(Schedule):
    """One count for each block; a short list goes on with 0.

    Args:
        counts: tokens removed in blocks 0, 1, …
    """

    counts: tuple[Count, ...]

    def count(self, layer: int, tokens: int, room: Room) -> int:
        if len(self.counts) > room.depth:
            raise ScheduleError(
                f"{self!r} names {len(self.counts)} blocks, the model has {room.depth}."
            )
        return self.counts[layer] if layer < len(self.counts) else 0
