"""Schedules: how many tokens go in each block, known before the forward runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from tokenred.core.errors import ConfigError, ScheduleError
from tokenred.core.part import Part, check_choice, check_count, check_number
from tokenred.core.registry import Registry

__all__ = [
    "Budget",
    "Constant",
    "KeepRatio",
    "Linear",
    "PerLayer",
    "Room",
    "Schedule",
    "quarters",
    "schedules",
]


@dataclass(frozen=True)
class Room:
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

    def count(self, layer: int, tokens: int, room: Room) -> int:
        """``P`` for a block that ``tokens`` image tokens enter."""
        raise NotImplementedError

    def resolve(self, room: Room) -> tuple[int, ...]:
        """The counts of all blocks.

        Raises:
            ScheduleError: where a block cannot give what is asked: block, asked, available.
        """
        counts, tokens = [], room.patches
        for layer in range(room.depth):
            asked, most = self.count(layer, tokens, room), max(0, room.limit(tokens))
            if asked < 0 or (asked > most and not room.caps):
                raise ScheduleError(
                    f"{self!r} asks block {layer} to remove {asked} tokens; {tokens} image tokens "
                    f"enter it and between 0 and {most} can go. Remove fewer, or in fewer blocks."
                )
            counts.append(min(asked, most))
            tokens -= counts[-1] - (room.extra if counts[-1] else 0)
        return tuple(counts)

    def __call__(self, depth: int, patches: int) -> tuple[int, ...]:
        """The counts for a model of so many blocks and image tokens."""
        return self.resolve(Room(depth, patches))


schedules: Registry[Schedule] = Registry("schedule", Schedule, "tokenred.strategies.schedules")


def quarters(depth: int) -> tuple[int, ...]:
    """The blocks after each quarter of the depth: 3, 6, 9 of 12; 4, 8, 12 of 16."""
    return tuple(sorted({depth * q // 4 for q in (1, 2, 3)}))


def exact(number: float) -> Fraction:
    """A number as it was written: 0.7 of 10 tokens are 7, not 7.000…1."""
    return Fraction(str(number))


def _layers_of(owner: Part, layers: tuple[int, ...] | None, depth: int) -> tuple[int, ...]:
    chosen = quarters(depth) if layers is None else layers
    if wrong := [x for x in chosen if not 0 <= x < depth]:
        raise ScheduleError(
            f"{type(owner).__name__}: blocks {wrong} are asked for, the model has blocks "
            f"0 to {depth - 1}. Leave `layers` out for the quarters of the depth."
        )
    return chosen


def _check_layers(owner: Part, layers: Sequence[int] | None) -> tuple[int, ...] | None:
    if layers is None:
        return None
    for layer in layers:
        check_count(owner, "layers", layer)
    if len(set(layers)) != len(layers) or sorted(layers) != list(layers) or not layers:
        raise ConfigError(
            f"{type(owner).__name__}: layers must be ascending block numbers, got {layers!r}."
        )
    return tuple(layers)


@schedules.register("Constant")
class Constant(Schedule):
    """The same P in every block (GTP's).

    Args:
        P: tokens removed in a block, ≥ 0.
        fit: on a model with too few tokens for P, remove half of them, evenly, instead of
            refusing. For the defaults of recipes; wherever P fits, it makes no difference, so it
            does not make two schedules different either.
    """

    P: int
    fit: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        check_count(self, "P", self.P)

    def count(self, layer: int, tokens: int, room: Room) -> int:
        if self.fit and self.P * room.depth >= room.patches:
            return room.patches // (2 * room.depth)
        return self.P


@schedules.register("PerLayer")
class PerLayer(Schedule):
    """One count for each block; a short list goes on with 0.

    Args:
        counts: tokens removed in blocks 0, 1, …
    """

    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", tuple(self.counts))
        for count in self.counts:
            check_count(self, "counts", count)

    def count(self, layer: int, tokens: int, room: Room) -> int:
        if len(self.counts) > room.depth:
            raise ScheduleError(
                f"{self!r} names {len(self.counts)} blocks, the model has {room.depth}."
            )
        return self.counts[layer] if layer < len(self.counts) else 0


@schedules.register("Linear")
class Linear(Schedule):
    """Counts that rise or fall evenly around r (ToMe's schedule).

    Args:
        r: tokens removed in a block on average, ≥ 0.
        inflection: −1 from 2r down to 0, 0 constant, 1 from 0 up to 2r.
    """

    r: int
    inflection: float = 0.0

    def __post_init__(self) -> None:
        check_count(self, "r", self.r)
        check_number(self, "inflection", self.inflection, low=-1, high=1)

    def count(self, layer: int, tokens: int, room: Room) -> int:
        low = int(self.r * (1 - self.inflection))
        high = 2 * self.r - low
        return int(low + (high - low) * layer / max(1, room.depth - 1))


@schedules.register("KeepRatio")
class KeepRatio(Schedule):
    """Keep a share ρ of the tokens in some blocks (EViT's, DynamicViT's).

    Args:
        ratio: ρ in (0, 1]; one number, or one for each of `layers`.
        layers: blocks, ascending; None for the quarters of the depth.
        rounding: of the kept count, ``"ceil"`` or ``"floor"``.
        of: ρ of the living tokens (``"alive"``), or of those at the start (``"start"``), where
            one number means ρ, ρ², ρ³ …
    """

    ratio: float | tuple[float, ...] = 0.7
    layers: tuple[int, ...] | None = None
    rounding: str = "ceil"
    of: str = "alive"

    def __post_init__(self) -> None:
        if isinstance(self.ratio, list | tuple):
            object.__setattr__(self, "ratio", tuple(self.ratio))
        for value in self.ratio if isinstance(self.ratio, tuple) else (self.ratio,):
            check_number(self, "ratio", value, low=0, high=1, open_low=True)
        check_choice(self, "rounding", self.rounding, ("ceil", "floor"))
        check_choice(self, "of", self.of, ("alive", "start"))
        object.__setattr__(self, "layers", _check_layers(self, self.layers))
        if isinstance(self.ratio, tuple) and self.layers and len(self.ratio) != len(self.layers):
            raise ConfigError(
                f"KeepRatio: {len(self.ratio)} ratios for {len(self.layers)} layers; "
                "give one ratio, or one for each layer."
            )

    def count(self, layer: int, tokens: int, room: Room) -> int:
        layers = _layers_of(self, self.layers, room.depth)
        if layer not in layers:
            return 0
        stage = layers.index(layer)
        if isinstance(self.ratio, tuple):
            if len(self.ratio) != len(layers):
                raise ScheduleError(
                    f"{self!r}: {len(self.ratio)} ratios for the {len(layers)} blocks {layers}."
                )
            share = exact(self.ratio[stage])
        else:
            share = exact(self.ratio) ** (stage + 1 if self.of == "start" else 1)
        kept = share * (room.patches if self.of == "start" else tokens)
        rounded = math.ceil(kept) if self.rounding == "ceil" else math.floor(kept)
        return max(0, tokens - max(1, rounded))


@schedules.register("Budget")
class Budget(Schedule):
    """As many tokens as fit a budget of GMACs: the largest cost that does not exceed it.

    Args:
        gmacs: the budget for one image, in GMACs as `tokenred.gmacs` counts them.
        shape: ``"constant"`` removes evenly in all blocks (GTP, ToMe), ``"ratio"`` keeps a share
            at some blocks (EViT).
        layers: the blocks, ascending; None for all (constant) or the quarters (ratio).
    """

    gmacs: float
    shape: str = "constant"
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_number(self, "gmacs", self.gmacs, low=0, open_low=True)
        check_choice(self, "shape", self.shape, ("constant", "ratio"))
        object.__setattr__(self, "layers", _check_layers(self, self.layers))

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
        _layers_of(self, layers, room.depth)
        counts = [0] * room.depth
        for place, layer in enumerate(layers):
            counts[layer] = step // len(layers) + (place < step % len(layers))
        return PerLayer(tuple(counts)).resolve(room)
