"""When two parts are the same, quickly; and what was worked out for one already."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from tokenred.core.part import Part
from tokenred.strategies.strategy import Strategy

__all__ = ["Marks", "Memo", "mark", "marks_of"]

T = TypeVar("T")
V = TypeVar("V")
Marks = dict[str, Hashable | None]

_FIELDS = tuple(f.name for f in dataclasses.fields(Strategy))
_PLAIN = frozenset((bool, int, float, str, type(None)))
_MOST = 4096


def mark(part: Part) -> Hashable | None:
    """Equal for parts with the same configuration, to the type of each value (1 is not 1.0).

    None for a part that holds anything but numbers, words and rows of them.
    """
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


def marks_of(strategy: Strategy) -> Marks:
    """The marks of a strategy's parts by field."""
    found: Marks = {}
    for name in _FIELDS:
        value = getattr(strategy, name)
        if isinstance(value, Part):
            found[name] = mark(value)
        elif isinstance(value, tuple):
            several = tuple(mark(item) for item in value)
            found[name] = None if None in several else several
    return found


class Memo(Generic[T]):
    """What was made under a key, for some thousand keys."""

    def __init__(self) -> None:
        self._known: dict[Hashable, T] = {}

    def get(self, key: Hashable | None, make: Callable[[V], T], value: V) -> T:
        """What is known under a key, or is made of a value now. Under None nothing is kept."""
        found = self._known.get(key)
        if found is None:
            found = make(value)
            if len(self._known) >= _MOST:
                self._known.clear()
            if key is not None:
                self._known[key] = found
        return found
