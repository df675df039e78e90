"""The points of a grid: names and values, in the order in which they run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tokenred.core.errors import ConfigError, shown
from tokenred.core.part import Part
from tokenred.core.values import read as read_value
from tokenred.strategies.strategy import Strategy

__all__ = ["OUTSIDE", "SETTINGS", "Axes", "plain"]

# What a strategy runs on. These vary slowest, so that a worker can keep what it has loaded.
SETTINGS = (
    "model", "image_size", "data", "dtype", "device", "compile", "threads", "batch_size", "limit",
    "seed",
)  # fmt: skip
# Axes that say which cell it is, and are no arguments of its strategy.
OUTSIDE = (*SETTINGS, "base", "budget")

Assignment = dict[str, Any]


class Axes:
    """The cross product of some axes, then a list of single points. Iterates over all of them.

    Args:
        axes: values by name; the last axis varies fastest.
        points: further points, each a mapping from names to values.
        where: keeps a point if it says so, given its names and values (of bases, models and data
            their labels).
        read: turns a value of a name into what it means.

    Attributes:
        names: of all axes.

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
        self._axes = {
            name: tuple(read(name, value) for value in _values(name, values))
            for name, values in _named(axes or {}).items()
        }
        self._points = [
            {name: read(name, value) for name, value in _point(point).items()}
            for point in points or ()
        ]
        self._where = where
        self.names = tuple(dict.fromkeys([*self._axes, *(n for p in self._points for n in p)]))

    def __len__(self) -> int:
        """The number of points, those that ``where`` leaves out included."""
        # Without axes there is one point, the base itself, unless points are listed.
        product = math.prod(map(len, self._axes.values())) if self._axes or not self._points else 0
        return product + len(self._points)

    def __iter__(self) -> Iterator[tuple[int, Assignment]]:
        """Position and values of each point that is kept."""
        for position, point in enumerate(itertools.chain(self._product(), self._points)):
            if self._where is None or self._where({k: _shown(v) for k, v in point.items()}):
                yield position, point

    def values(self, name: str) -> tuple[Any, ...]:
        """All values that a name takes, as often as they are listed."""
        return (*self._axes.get(name, ()), *(p[name] for p in self._points if name in p))

    def covers(self, name: str) -> bool:
        """Whether every point has a value of a name."""
        product = name in self._axes or (not self._axes and bool(self._points))
        return product and all(name in point for point in self._points)

    def _product(self) -> Iterator[Assignment]:
        if not self._axes and self._points:
            return
        ordered = sorted(self._axes, key=lambda n: SETTINGS.index(n) if n in SETTINGS else 99)
        places = [ordered.index(name) for name in self._axes]
        for values in itertools.product(*(self._axes[name] for name in ordered)):
            yield dict(zip(self._axes, [values[at] for at in places], strict=True))


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
    try:
        return str(_shown(value))
    except Exception:  # whatever an object's own __str__ raises
        return shown(value)


def _shown(value: Any) -> Any:
    """Bases, models and data have a name to be shown."""
    return getattr(value, "label", value)


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
    if isinstance(value, int | str | list | tuple | dict):
        try:  # as keys and the store will
            str(plain(value)).encode()
        except (ValueError, RecursionError):
            raise ConfigError(
                f"expected axis values that can be written down, got {shown(value)}."
            ) from None
    return value
