"""The contract of a schedule: the number of tokens removed per block, known in advance."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from heapq import heapify, heapreplace
from typing import ClassVar, Literal

from tokenred.core.errors import ConfigError, PartError, ScheduleError, shown
from tokenred.core.part import Part, check_blocks
from tokenred.core.registry import KINDS, Registry


@dataclass(frozen=True)
class ScheduleContext:
    """The context that a schedule is resolved in.

    Attributes:
        depth: blocks ``L``.
        patches: image tokens at the start.
        added: tokens that a reduction in a block adds (the fuser's `extra_in`).
        limit: the most tokens that can be removed at once (the selector's `limit`).
        caps: whether a request above `limit` is capped; otherwise it is refused.
        gmacs: cost of a list of counts, for `Budget`.
        prefix: prefix tokens.
        grid: height and width in image tokens, or None.
    """

    depth: int
    patches: int
    added: Callable[[int], int] = lambda layer: 0
    limit: Callable[[int], int] = lambda tokens: tokens - 1
    caps: bool = False
    gmacs: Callable[[Sequence[int]], float] | None = None
    prefix: int = 0
    grid: tuple[int, int] | None = None


class Schedule(Part):
    """The number of tokens removed in each block. Call it with (depth, N0) to resolve it.

    To write one: "Write a part", docs/extending.md; to test it: `tokenred.testing.check_schedule`.

    Attributes:
        keeps: the parameter that is a share of tokens to keep, which a `Budget` finds; "" if none.
        written: the number of tokens as the user gave it to a recipe, "P=8"; "" for its default.
    """

    keeps: ClassVar[str] = ""
    written: ClassVar[str] = ""  # of an instance, ignored by equality

    def written_as(self, text: str) -> "Schedule":
        """The same schedule, which remembers how its number of tokens was given."""
        made = copy.copy(self)
        object.__setattr__(made, "written", text)
        return made

    def count(self, layer: int, tokens: int, context: ScheduleContext) -> int:
        """``P`` for a block with ``tokens`` input image tokens."""
        raise PartError(f"{type(self).__name__} has no count(self, layer, tokens, context).")

    def share(self, layer: int, context: ScheduleContext) -> float | None:
        """The share of all tokens that should remain after a block, before rounding.

        The target of a training form; None if only counts are defined.
        """
        return None

    def scaled(self, share: float, context: ScheduleContext) -> tuple[int, ...]:
        """The counts of all blocks at another cost, in the same shape; for `Budget`.

        By default this changes the share that `keeps` names, otherwise it scales the schedule's own
        counts.

        Args:
            share: from 1, which removes nothing, to ``1 / context.patches``, which leaves one token
                or as few as possible. A smaller share must not cost more.
            context: the model.

        Raises:
            ScheduleError: for a schedule that removes nothing, and so has no shape, or one that
                cannot be scaled.
        """
        if self.keeps and not isinstance(getattr(self, self.keeps), tuple):
            return self.replace(**{self.keeps: share}).resolve(context)
        return spread(self, self.resolve(replace(context, caps=True)), share, context)

    def resolve(self, context: ScheduleContext) -> tuple[int, ...]:
        """The counts of all blocks.

        Raises:
            ScheduleError: if a block cannot remove that many tokens; names block, request and
                limit.
            PartError: if `count` gives no whole number.
        """
        counts, tokens = [], context.patches
        for layer in range(context.depth):
            counts.append(self.possible(layer, tokens, context))
            tokens -= counts[-1] - (context.added(layer) if counts[-1] else 0)
        return tuple(counts)

    def possible(self, layer: int, tokens: int, context: ScheduleContext) -> int:
        """`count`, refused or capped where a block cannot remove that many tokens."""
        asked, most = self.count(layer, tokens, context), max(0, context.limit(tokens))
        if not hasattr(asked, "__index__"):
            raise PartError(
                f"{self!r}: expected a whole number from count(), got {shown(asked)} for block "
                f"{layer}. Round it."
            )
        if asked < 0 or (asked > most and not context.caps):
            raise ScheduleError(
                f"{self!r} asks block {layer} to remove {asked} tokens; {tokens} image tokens "
                f"enter it and between 0 and {most} can be removed. Remove fewer, or in fewer "
                "blocks."
            )
        return min(int(asked), most)

    def __call__(self, depth: int, patches: int) -> tuple[int, ...]:
        """The counts for a model with this many blocks and image tokens."""
        return self.resolve(ScheduleContext(depth, patches))


schedules: Registry[Schedule] = KINDS["schedule"]


def quarters(depth: int) -> tuple[int, ...]:
    """The blocks after each quarter of the depth: 3, 6, 9 of 12; 4, 8, 12 of 16."""
    return tuple(sorted({depth * q // 4 for q in (1, 2, 3)}))


def spread(
    owner: Schedule, weights: Sequence[float], share: float, context: ScheduleContext
) -> tuple[int, ...]:
    """Counts in proportion to weights that leave this share of the tokens.

    Each token is removed where the proportion falls shortest (Webster's method), so a smaller share
    only removes more.

    Raises:
        ScheduleError: for weights that are all 0.
    """
    if not any(weights):
        raise ScheduleError(
            f"{owner!r} removes nothing, so a budget has no proportions to scale. Give it "
            "counts to scale, or use Constant or KeepRatio."
        )
    counts = [0] * context.depth
    waiting = [(-weight, layer) for layer, weight in enumerate(weights) if weight]
    heapify(waiting)
    for _ in range(context.patches - round(share * context.patches)):
        layer = waiting[0][1]
        counts[layer] += 1
        heapreplace(waiting, (-weights[layer] / (2 * counts[layer] + 1), layer))
    tokens = context.patches
    for layer, count in enumerate(counts):
        counts[layer] = min(count, max(0, context.limit(tokens)))
        tokens -= counts[layer] - (context.added(layer) if counts[layer] else 0)
    return tuple(counts)


def exact(number: float) -> Fraction:
    """The exact decimal value of a float: 0.7 of 10 tokens are 7, not 7.000…1."""
    return Fraction(str(number))


def layers_of(
    owner: Part, layers: tuple[int, ...] | Literal["all"] | None, depth: int
) -> tuple[int, ...]:
    """The given blocks, all of them, or by default those at the quarters of the depth.

    Raises:
        ScheduleError: if the model has no such block.
    """
    if layers == "all":
        return tuple(range(depth))
    chosen = quarters(depth) if layers is None else layers
    check_blocks(owner, chosen, depth, ScheduleError)
    return chosen


def check_each(owner: Part, name: str, layers: tuple[int, ...] | None) -> None:
    """Refuse several values of a parameter that are not one for each of the layers.

    Raises:
        ConfigError: with both numbers.
    """
    values, blocks = getattr(owner, name), layers or ()
    if isinstance(values, tuple) and len(values) != len(blocks):
        raise ConfigError(
            f"{type(owner).__name__}: {len(values)} {name} for {len(blocks)} layers; pass one, or "
            "layers with one for each."
        )
