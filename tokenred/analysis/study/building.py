"""From axis values to a strategy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tokenred.analysis.study.axes import SETTINGS, Axes
from tokenred.analysis.study.bases import DENSE, Base
from tokenred.core.errors import UnknownNameError
from tokenred.core.part import Part
from tokenred.core.registry import KINDS
from tokenred.strategies.config import resolve
from tokenred.strategies.strategy import Strategy

__all__ = ["Builder", "resolved"]

# Axes that say which cell it is, and are no arguments of its strategy.
OUTSIDE = (*SETTINGS, "base", "budget")
_FIELDS = frozenset(f.name for f in dataclasses.fields(Strategy))
_PARTS: dict[str, tuple[Any, ...]] = {field: (KINDS[field],) for field in KINDS if field in _FIELDS}
_PARTS["scorer"] += (KINDS["selector"],)  # whose place may hold one


def resolved(name: str, value: Any) -> Any:
    """An axis value, with a part in the place of the table that describes it."""
    if name.partition(".")[0] in OUTSIDE:
        return value
    if isinstance(value, Mapping):
        return resolve({name: dict(value)})[name]
    if isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
        return tuple(resolve({name: list(value)})[name])
    return value


class Builder:
    """Makes the strategies of a grid.

    A name means, in this order: an argument of the base's recipe; a field of `Strategy`; a
    parameter of whichever parts have it. ``part.parameter`` means that part's. What a cell's parts
    do not have is left aside (M with the graph ``none``), as long as some part of the grid has it.

    Args:
        bases: of the grid.
        axes: of the grid.

    Raises:
        UnknownNameError: for a name that means nothing.
    """

    def __init__(self, bases: Sequence[Base], axes: Axes) -> None:
        names = [name for name in axes.names if name not in OUTSIDE]
        self._known = _known(bases, axes)
        recipes = frozenset[str]().union(*(base.parameters for base in bases))
        for name in names:
            if name not in recipes | _FIELDS and not self._is_known(name):
                known = {*recipes, *_FIELDS, *OUTSIDE, *self._known}
                raise UnknownNameError.of("axis", name, known)

    def __call__(self, base: Base, assigned: Mapping[str, Any]) -> Strategy:
        """The strategy of a point.

        Raises:
            TokenredError: for values that a part or the strategy refuses.
        """
        if base.method == DENSE:
            return base.make({})
        arguments: dict[str, Any] = {}
        fields: dict[str, Any] = {}
        parameters: dict[str, Any] = {}
        for name, value in assigned.items():
            if name in base.parameters:
                arguments[name] = value
            elif name in _FIELDS:
                fields[name] = value
            elif name not in OUTSIDE:
                parameters[name] = value
        # A seed of the run is the seed of the parts that draw; one of their own goes before.
        if "seed" in assigned and not any(name.endswith(".seed") for name in parameters):
            parameters["seed"] = assigned["seed"]
        strategy = base.make(arguments)
        if fields:
            strategy = strategy.replace(**fields)
        for name, value in parameters.items():
            strategy = _with_parameter(strategy, name, value)
        return strategy

    def _is_known(self, name: str) -> bool:
        head, _, parameter = name.partition(".")
        return name in self._known if not parameter else parameter in self._known.get(head, ())


def _known(bases: Sequence[Base], axes: Axes) -> dict[str, frozenset[str]]:
    """Parameters of the parts that bases and axes name, by kind of part and by themselves."""
    found: dict[str, set[str]] = {kind: set() for kind in _PARTS}
    parts = [pair for base in bases for pair in base.make({}).parts.items()]
    for name, part in parts:
        found[name.partition(".")[0]] |= _parameters(type(part))
    for kind, registries in _PARTS.items():
        for value in axes.values(kind):
            listed = value if isinstance(value, list | tuple) else (value,)
            for item in listed:
                named = [r[item].make for r in registries if isinstance(item, str) and item in r]
                found[kind] |= set().union(*map(_parameters, [*named, type(item)]))
    every = {name: frozenset[str]() for names in found.values() for name in names}
    return every | {kind: frozenset(names) for kind, names in found.items()}


def _parameters(make: Any) -> set[str]:
    return {f.name for f in dataclasses.fields(make)} if dataclasses.is_dataclass(make) else set()


def _with_parameter(strategy: Strategy, name: str, value: Any) -> Strategy:
    """A strategy with a parameter of its parts set; as it is where none has it."""
    kind, _, parameter = name.rpartition(".")
    changes: dict[str, Any] = {}
    for field in _PARTS:
        # "scorer.aggregate" is the scorer's alone, "aggregate" that of every part that has it.
        if kind in ("", field):
            before = getattr(strategy, field)
            if isinstance(before, tuple):
                after: Any = tuple(_replaced(part, parameter, value) for part in before)
            else:
                after = _replaced(before, parameter, value)
            if after is not before:
                changes[field] = after
    return strategy.replace(**changes) if changes else strategy


def _replaced(part: Part, parameter: str, value: Any) -> Part:
    fields = getattr(part, "__dataclass_fields__", {})
    return part.replace(**{parameter: value}) if parameter in fields else part
