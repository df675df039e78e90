"""The points of a grid by their position, without making them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokenred.core.errors import ConfigError
from tokenred.core.part import Part
from tokenred.core.values import read as read_value
from tokenred.core.wording import shown
from tokenred.strategies.strategy import Strategy

__all__ = ["SETTINGS", "Axes", "plain"]

# What a strategy runs on. These vary slowest, so that a worker can keep what it has loaded.
SETTINGS = ("model", "data", "dtype", "limit", "seed")

Assignment = dict[str, Any]


class Axes:
    """The cross product of some axes, then a list of single points.

    Args:
        axes: values by name; the last axis varies fastest.
        points: further points, each a mapping from names to values.
        where: keeps a point if it says so, given its names and values (of bases, models and data
            their labels).
        read: turns a value of a name into what it means.

    Raises:
        ConfigError: for an axis without values, or one that is no list.
    """

    def __init__(
        self,
        axes: Mapping[str, Sequence[Any]] | None,
        points: Sequence[Mapping[str, Any]] | None,
        where: Callable[[Assignment], object] | None = None,
        read: Callable[[str, Any], Any] = lambda name, value: value,
    ) -> None:
        if axes is not None and not isinstance(axes, Mapping):
            raise ConfigError(f"expected axes as a mapping from names to lists, got {shown(axes)}.")
        named = {
            name: tuple(read(name, value) for value in _values(name, values))
            for name, values in _named(axes or {}).items()
        }
        ordered = sorted(named, key=lambda name: (name not in SETTINGS, _rank(name)))
        self._digits: list[tuple[str, tuple[Any, ...], int]] = []
        stride = 1
        for name in reversed(ordered):
            self._digits.append((name, named[name], stride))
            stride *= len(named[name])
        self._digits.reverse()
        self._order = tuple(named)
        self._product_names = frozenset(named)
        self._points = tuple(
            {name: read(name, value) for name, value in _point(point).items()}
            for point in points or ()
        )
        # Without axes there is one point, the base itself, unless points are listed.
        self._product = stride if named or not self._points else 0
        self._where = where
        self.names = tuple(dict.fromkeys([*named, *(n for p in self._points for n in p)]))

    def __len__(self) -> int:
        return self._product + len(self._points)

    def values(self, name: str) -> tuple[Any, ...]:
        """All values that a name takes, as often as they are listed."""
        listed = [v for n, values, _ in self._digits if n == name for v in values]
        return (*listed, *(p[name] for p in self._points if name in p))

    def names_at(self, position: int) -> frozenset[str]:
        """The names of a point."""
        if position < self._product:
            return self._product_names
        return frozenset(self._points[position - self._product])

    def at(self, position: int) -> Assignment | None:
        """Names and values of a point; None for one that ``where`` leaves out."""
        if position >= self._product:
            point = dict(self._points[position - self._product])
        else:
            point = dict.fromkeys(self._order)
            for name, values, stride in self._digits:
                point[name] = values[position // stride % len(values)]
        if self._where is not None and not self._where({k: _shown(v) for k, v in point.items()}):
            return None
        return point


def plain(value: Any) -> Any:
    """An axis value as JSON holds it: numbers and words as they are, anything else as text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Part | Strategy):
        return repr(value)
    # Bases, models and data have a name to be shown.
    return str(getattr(value, "label", value))


def _shown(value: Any) -> Any:
    return getattr(value, "label", value)


def _rank(name: str) -> int:
    return SETTINGS.index(name) if name in SETTINGS else 0


def _values(name: str, values: Any) -> tuple[Any, ...]:
    if isinstance(values, str | Mapping) or not hasattr(values, "__iter__"):
        raise ConfigError(
            f"axis {name!r}: expected a list of values, got {shown(values)}; write [ ]."
        )
    found = tuple(_unboxed(value) for value in values)
    if not found:
        raise ConfigError(f"axis {name!r}: expected at least one value, got none.")
    return found


def _point(point: Any) -> Assignment:
    if not isinstance(point, Mapping):
        raise ConfigError(f"expected a cell as a mapping from names to values, got {shown(point)}.")
    return {name: _unboxed(value) for name, value in _named(point).items()}


def _named(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {read_value(str, name, "the name of an axis"): value for name, value in values.items()}


def _unboxed(value: Any) -> Any:
    """A NumPy number as Python's own: parts check for those."""
    item = getattr(value, "item", None)
    shape = getattr(value, "shape", None)
    try:
        if callable(item) and shape == ():
            value = item()
        elif callable(getattr(value, "tolist", None)) and shape is not None:
            value = tuple(value.tolist())
    except RuntimeError:  # a tensor without values
        raise ConfigError(f"expected numbers on the axes, got {shown(value)}.") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"expected finite numbers on the axes, got {value!r}.")
    return value
