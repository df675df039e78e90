"""From what a cell starts from, and its axis values, to a strategy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenred.analysis.study.axes import OUTSIDE, Axes
from tokenred.core.errors import ConfigError, PartError, TokenredError, UnknownNameError
from tokenred.core.part import Part
from tokenred.core.registry import KINDS
from tokenred.strategies.config import resolve
from tokenred.strategies.specs import Spec, parse_spec, read_arguments
from tokenred.strategies.strategy import Strategy, divide_arguments, from_config, recipes

__all__ = ["DENSE", "Base", "Builder", "read_base", "resolved"]

DENSE = "dense"
_FIELDS = frozenset(f.name for f in dataclasses.fields(Strategy))
_PARTS: dict[str, tuple[Any, ...]] = {field: (KINDS[field],) for field in KINDS if field in _FIELDS}
_PARTS["scorer"] += (KINDS["selector"],)  # whose place may hold one


@dataclass(frozen=True)
class Base:
    """A recipe with arguments, or a strategy.

    Attributes:
        label: as one writes it.
        method: the family it belongs to.
        recipe: makes strategies; None where ``strategy`` is given.
        arguments: of the recipe.
        fields: of the strategy, which replace what the recipe chose.
        parameters: names that the recipe takes.
        strategy: in place of a recipe.
        share: of the dense model's GMACs; None for the schedule as it is.
    """

    label: str
    method: str
    recipe: Callable[..., Strategy] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    parameters: frozenset[str] = frozenset()
    strategy: Strategy | None = None
    share: float | None = None

    def make(self, arguments: Mapping[str, Any]) -> Strategy:
        """The strategy with some arguments set."""
        if self.recipe is None:
            assert self.strategy is not None
            return self.strategy
        try:
            made = self.recipe(**{**self.arguments, **arguments})
        except TokenredError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(f"recipe {self.method!r} does not take this: {error}.") from error
        if not isinstance(made, Strategy):
            raise PartError(f"recipe {self.method!r} must return a Strategy, got {made!r}.")
        return made.replace(**self.fields) if self.fields else made


def read_base(given: Any) -> Base:
    """A base from what a user writes.

    Args:
        given: a recipe's name, also with arguments and a share (``"gtp:P=4@0.65"``); ``"dense"``;
            a mapping such as ``{"recipe": "gtp", "P": 4}``; a `Strategy`, a `Spec`, or the path of
            a strategy's ``.toml``.

    Raises:
        TokenredError: as `tokenred.analysis.parse_spec` raises them.
    """
    if isinstance(given, str) and given.strip().casefold() == DENSE:
        return Base(DENSE, DENSE, strategy=Strategy.dense())
    if isinstance(given, Mapping):
        values = dict(given)
        strategy = from_config(values)  # refuses what is not there
        if "recipe" not in values:
            return _of_spec(parse_spec(strategy))
        name = str(values.pop("recipe"))
        shown = ",".join(f"{k}={v}" for k, v in values.items())
        return _of_recipe(f"{name}:{shown}" if shown else name, name, resolve(values), None)
    spec = parse_spec(given)
    if not isinstance(given, str | Path) or spec.method not in recipes:
        return _of_spec(spec)
    body = spec.label if spec.share is None else spec.label.rpartition("@")[0]
    if body.endswith(".toml") or str(given).partition("@")[0].endswith(".toml"):
        return _of_spec(spec)
    arguments = read_arguments(body.partition(":")[2], spec.label)
    return _of_recipe(body, spec.method, resolve(arguments), spec.share)


def _of_spec(spec: Spec) -> Base:
    label = spec.label if spec.share is None else spec.label.rpartition("@")[0]
    return Base(label, spec.method, strategy=spec.strategy, share=spec.share)


def _of_recipe(label: str, name: str, arguments: dict[str, Any], share: float | None) -> Base:
    own, fields = divide_arguments(name, arguments)
    return Base(
        label=label,
        method=name.casefold(),
        recipe=recipes[name].make,
        arguments=own,
        fields=fields,
        parameters=recipes[name].parameters,
        share=share,
    )


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
    for place in _PARTS:
        # "scorer.aggregate" is the scorer's alone, "aggregate" that of every part that has it.
        if kind in ("", place):
            before = getattr(strategy, place)
            if isinstance(before, tuple):
                after: Any = tuple(_replaced(part, parameter, value) for part in before)
            else:
                after = _replaced(before, parameter, value)
            if after is not before:
                changes[place] = after
    return strategy.replace(**changes) if changes else strategy


def _replaced(part: Part, parameter: str, value: Any) -> Part:
    fields = getattr(part, "__dataclass_fields__", {})
    return part.replace(**{parameter: value}) if parameter in fields else part
