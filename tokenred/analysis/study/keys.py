"""What tells strategies apart, and whether a model can do them, for thousands in a row.

Parts recur from cell to cell: what was worked out for one is kept by its configuration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

from tokenred.analysis.study.facts import ModelFacts
from tokenred.core.fingerprint import digest
from tokenred.core.part import Part
from tokenred.reduced.cost import Cost, strategy_cost
from tokenred.reduced.plan import plan_layers
from tokenred.strategies.config import counts, told_text
from tokenred.strategies.strategy import Strategy

__all__ = ["Checker", "Fingerprints", "Marks", "marks_of", "parts_within"]

T = TypeVar("T")
V = TypeVar("V")
Marks = dict[str, Hashable | None]

_FIELDS = dataclasses.fields(Strategy)
_PLAIN = frozenset((bool, int, float, str, type(None)))


def marks_of(strategy: Strategy) -> Marks:
    """By field, what is equal for equally configured parts; None for what cannot be compared."""
    found: Marks = {}
    for field in _FIELDS:
        value = getattr(strategy, field.name)
        if isinstance(value, Part):
            found[field.name] = _mark(value)
        elif isinstance(value, tuple):
            several = tuple(_mark(item) for item in value)
            found[field.name] = None if None in several else several
    return found


def _mark(part: Part) -> Hashable | None:
    """Equal to the type of each value (1 is not 1.0); None for other than plain values."""
    if not part.__dict__:
        return (part.__class__,)
    values = tuple(part.__dict__.values())
    types = tuple(map(type, values))
    if _PLAIN.issuperset(types):
        return (part.__class__, values, types)
    rows = [value if type(value) is tuple else (value,) for value in values]
    if all(_PLAIN.issuperset(map(type, row)) for row in rows):
        return (part.__class__, repr(values))
    return None


class _Memo(Generic[T]):
    """What was made under a key. Under None nothing is kept."""

    def __init__(self) -> None:
        self._known: dict[Hashable, T] = {}

    def get(self, key: Hashable | None, make: Callable[[V], T], value: V) -> T:
        found = self._known.get(key)
        if found is None:
            found = make(value)
            if key is not None:
                self._known[key] = found
        return found


class Fingerprints:
    """Gives what `Strategy.fingerprint` gives, faster for strategies that share parts.

    For one pass over a grid: it takes own parts as they are at the first look.
    """

    def __init__(self) -> None:
        self._told: _Memo[str] = _Memo()
        self._codes: dict[type, str] = {}

    def __call__(self, strategy: Strategy, marks: Marks) -> str:
        """The fingerprint of a strategy with these marks.

        Raises:
            PartError: as `Strategy.fingerprint`.
        """
        texts = []
        for field in _FIELDS:
            name, value = field.name, getattr(strategy, field.name)
            if counts(field, value):
                key = marks[name] if name in marks else (type(value), value)
                texts.append(f"{name} {self._told.get(key, self._tell, value)}")
        return digest("\n".join(texts))

    def _tell(self, value: Any) -> str:
        return told_text(value, self._codes)


class Checker:
    """Checks strategies on a model that need not be loaded, and says what they cost.

    Args:
        facts: about the model.
    """

    def __init__(self, facts: ModelFacts) -> None:
        self._facts = facts
        self._graphs: _Memo[bool] = _Memo()
        self._counts: _Memo[tuple[int, ...]] = _Memo()

    def check(self, strategy: Strategy, marks: Marks) -> tuple[int, ...]:
        """The tokens removed in each block.

        Raises:
            TokenredError: for a strategy that the model cannot do.
        """
        self._graphs.get(marks["graph"], self._fits, strategy.graph)
        return self._counts.get(_same_counts(strategy, marks), self._resolve, strategy)

    def cost(self, strategy: Strategy) -> Cost:
        """What an image costs.

        Raises:
            TokenredError: as `check`.
        """
        counts = self.check(strategy, marks_of(strategy))
        return strategy_cost(strategy, self._facts.info, counts, self._facts.stem)

    def _fits(self, part: Part) -> bool:
        part.check(self._facts.info)
        return True

    def _resolve(self, strategy: Strategy) -> tuple[int, ...]:
        strategy.check(self._facts.info)
        plans = plan_layers(strategy, self._facts.info, self._facts.stem)
        return tuple(plan.count for plan in plans)


def _same_counts(strategy: Strategy, marks: Marks) -> Hashable | None:
    """Equal for strategies with the same counts.

    θ has no say in them, nor has the graph, unless it has weights that a budget must pay for.
    """
    if type(strategy.graph).learned_macs is Part.learned_macs:
        marks = {**marks, "graph": ()}
    return None if None in marks.values() else (strategy.where, *marks.values())


def parts_within(part: Part) -> Iterator[Part]:
    """A part, and the parts that it holds."""
    yield part
    for field in dataclasses.fields(part):  # type: ignore[arg-type]
        value = getattr(part, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Part):
                yield from parts_within(item)
