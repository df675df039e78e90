"""The contract of a schedule: how many tokens go in each block, known before the forward runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from tokenred.core.errors import ScheduleError
from tokenred.core.part import Part, check_blocks
from tokenred.core.registry import KINDS, Registry

__all__ = [
    "Schedule",
    "ScheduleContext",
    "exact",
    "layers_of",
    "quarters",
    "schedules",
]


@dataclass(frozen=True)
class ScheduleContext:
    """What a schedule is resolved against.

    Attributes:
        depth: blocks ``L``.
        patches: image tokens at the start.
        extra: tokens that a reduction adds (the fuser's `extra`).
        limit: the most tokens that may go at once, of so many (the selector's `limit`).
        caps: whether asking for more means `limit`; else it is refused.
        gmacs: cost of a list of counts, for `Budget`.
    """

    depth: int
    patches: int
    extra: int = 0
    limit: Callable[[int], int] = lambda tokens: tokens - 1
    caps: bool = False
    gmacs: Callable[[Sequence[int]], float] | None = None


class Schedule(Part):
    """How many tokens go in each block. Calling it with (depth, N0) resolves it."""

    def count(self, layer: int, tokens: int, context: ScheduleContext) -> int:
        """``P`` for a block that ``tokens`` image tokens enter."""
        raise NotImplementedError

    def share(self, layer: int, context: ScheduleContext) -> float | None:
        """The share of all tokens that should be left after a block, before whole tokens round it.

        What a training form aims at; None where the counts are all there is.
        """
        return None

    def resolve(self, context: ScheduleContext) -> tuple[int, ...]:
        """The counts of all blocks.

        Raises:
            ScheduleError: where a block cannot give what is asked: block, asked, available.
        """
        counts, tokens = [], context.patches
        for layer in range(context.depth):
            asked, most = self.count(layer, tokens, context), max(0, context.limit(tokens))
            if asked < 0 or (asked > most and not context.caps):
                raise ScheduleError(
                    f"{self!r} asks block {layer} to remove {asked} tokens; {tokens} image tokens "
                    f"enter it and between 0 and {most} can go. Remove fewer, or in fewer blocks."
                )
            counts.append(min(asked, most))
            tokens -= counts[-1] - (context.extra if counts[-1] else 0)
        return tuple(counts)

    def __call__(self, depth: int, patches: int) -> tuple[int, ...]:
        """The counts for a model of so many blocks and image tokens."""
        return self.resolve(ScheduleContext(depth, patches))


schedules: Registry[Schedule] = KINDS["schedule"]


def quarters(depth: int) -> tuple[int, ...]:
    """The blocks after each quarter of the depth: 3, 6, 9 of 12; 4, 8, 12 of 16."""
    return tuple(sorted({depth * q // 4 for q in (1, 2, 3)}))


def exact(number: float) -> Fraction:
    """A number as it was written: 0.7 of 10 tokens are 7, not 7.000…1."""
    return Fraction(str(number))


def layers_of(owner: Part, layers: tuple[int, ...] | None, depth: int) -> tuple[int, ...]:
    """The blocks that are meant, the quarters where none are named.

    Raises:
        ScheduleError: where the model has no such block.
    """
    chosen = quarters(depth) if layers is None else layers
    check_blocks(owner, chosen, depth, ScheduleError)
    return chosen
