"""Interpret the arguments of a grid: its points and their settings; nothing is loaded."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from tokenred.analysis.study.cell import OUTSIDE, PARTS, SETTINGS, Base, Setting, plain, read_base
from tokenred.analysis.study.metrics import Metric, read_metrics
from tokenred.analysis.study.refs import DataRef, ModelRef, read_data, read_model
from tokenred.attention import pick_engine
from tokenred.core.errors import ConfigError, TokenredError, UnknownNameError, shown
from tokenred.core.values import SETTING_TYPES, read, unknown_parameter
from tokenred.strategies.config import resolve
from tokenred.strategies.strategy import FIELDS

Point = dict[str, Any]
"""Values by the name of their axis."""
_MEGABYTE = 1 << 20


class Design:
    """The points of a grid, in order, from the arguments of `tokenred.analysis.Grid` by name.

    Raises:
        TokenredError: for invalid names and values.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._split, self._class_map = told["split"], told["class_map"]
        self._where = told["where"]
        self._known: dict[tuple[str, Any], Any] = {}
        self._sized: dict[Any, ModelRef] = {}
        self.name, self.channels_last = told["name"], bool(told["channels_last"])
        self.loaders, self.room = told["loaders"], told["image_cache"] * _MEGABYTE
        axes = {} if told["axes"] is None else told["axes"]
        if not isinstance(axes, Mapping):
            raise ConfigError(f"expected axes as a mapping from names to lists, got {shown(axes)}.")
        product = {
            _name(name): [self._read(name, _unboxed(value)) for value in _listed(name, values)]
            for name, values in axes.items()
        }
        single = [self._point(point) for point in told["cells"] or ()]
        self.axes = tuple(dict.fromkeys([*product, *(name for point in single for name in point)]))
        # The last axis varies fastest, settings slowest. Without axes there is one point, the base
        # itself, unless points are listed.
        order = sorted(product, key=lambda n: SETTINGS.index(n) if n in SETTINGS else len(SETTINGS))
        self._points = single
        if product or not single:
            varied = itertools.product(*(product[name] for name in order))
            chosen = (dict(zip(order, values, strict=True)) for values in varied)
            self._points = [*({name: one[name] for name in product} for one in chosen), *single]
        self._default = {
            name: self._read(name, told[name])
            for name in ("base", *SETTINGS, "budget")
            if told.get(name) is not None
        }
        for name in ("base", "model"):
            if name not in self._default and not self._covers(name):
                raise ConfigError(f"expected {name}= for the grid, or {name!r} on an axis.")
        against = self.against = told["against"]
        from_base = isinstance(against, str) and against == "base"
        if from_base and not set(self.axes).difference(SETTINGS, ["base", "budget"]):
            raise ConfigError(
                "expected axes that change the base, or another reference than 'base': each cell "
                "would be compared with itself. Pass a strategy as the reference."
            )
        if against is not None and not from_base:
            try:
                self.against = self._read("base", against)
            except TokenredError as error:
                raise type(error)(f"against: {error}") from error
        reference = told["reference"]
        self.reference = None if reference is None else self._read("model", reference)
        self.metrics: tuple[Metric, ...] = read_metrics(told["metrics"])
        without_data = self._default.get("data") is None and not self._covers("data")
        if without_data or None in self._values("data"):
            for metric in self.metrics:
                if metric.needs_data:
                    raise ConfigError(f"metric {metric.name!r} needs images; pass data=.")
        self._check_names()

    def __len__(self) -> int:
        """The number of points, including those that ``where`` excludes."""
        return len(self._points)

    def __iter__(self) -> Iterator[tuple[int, Point]]:
        """Position and values of each point that is kept."""
        for position, point in enumerate(self._points):
            if self._where is None or self._where(
                {name: getattr(value, "label", value) for name, value in point.items()}
            ):
                yield position, point

    def _values(self, name: str) -> list[Any]:
        """The different values of a name."""
        found = (point[name] for point in self._points if name in point)
        return list({id(value): value for value in found}.values())

    def _covers(self, name: str) -> bool:
        """Whether every point has a value of a name."""
        return all(name in point for point in self._points)

    def base(self, point: Point) -> Base:
        """What a point starts from."""
        found = point.get("base", self._default.get("base"))
        assert isinstance(found, Base)
        return found

    def budget(self, point: Point) -> float | None:
        """The share of the dense model's GMACs that a point may cost."""
        share: float | None = point.get("budget", self._default.get("budget"))
        return self.base(point).share if share is None else share

    def setting(self, point: Point) -> Setting:
        """The setting of a point."""
        chosen: dict[str, Any] = {
            name: point.get(name, self._default.get(name)) for name in SETTINGS
        }
        model, size = chosen["model"], chosen.pop("image_size")
        if size is not None:
            # One object for each, by which models are told apart.
            sized = dataclasses.replace(model, image_size=size)
            chosen["model"] = self._sized.setdefault((model, size), sized)
        return Setting(**chosen)

    def _point(self, point: Any) -> Point:
        if not isinstance(point, Mapping):
            raise ConfigError(
                f"expected cells as mappings from names to values, got {shown(point)}."
            )
        return {_name(name): self._read(name, _unboxed(value)) for name, value in point.items()}

    def _read(self, name: str, value: Any) -> Any:
        """The meaning of an axis value, or of a default."""
        if name in ("base", "model", "data"):
            mark = (name, value) if isinstance(value, str) else (name, id(value))
            if mark not in self._known:
                # Keep the value itself, so that its address is not reused.
                self._known[mark] = value, self._named(name, value)
            return self._known[mark][1]
        if name in SETTING_TYPES:
            if isinstance(value, torch.dtype | torch.device):
                value = str(value).removeprefix("torch.")
            value = read(SETTING_TYPES[name], value, name)
            if name == "attention":
                pick_engine(value)
            square = name == "image_size" and isinstance(value, int)
            return (value, value) if square else value
        return value if name in OUTSIDE else _with_parts(name, value)

    def _named(self, name: str, value: Any) -> Base | ModelRef | DataRef | None:
        if name != "data":
            return read_base(value) if name == "base" else read_model(value)
        return None if value is None else read_data(value, self._split, self._class_map)

    def _check_names(self) -> None:
        """Refuse an axis that no base or part of the grid knows."""
        bases = [base for base in (*self._values("base"), self._default.get("base")) if base]
        parts = [named for base in bases for named in base.strategy.parts.items()]
        known: dict[str, set[str]] = {kind: set() for kind in PARTS}
        for name, part in parts:  # "fuser", "score_mods.0", "steps.1.fuser"
            known[next(kind for kind in name.split(".") if kind in PARTS)] |= _fields_of(type(part))
        for kind, registries in PARTS.items():
            for value in self._values(kind):
                for item in value if isinstance(value, list | tuple) else (value,):
                    makes = [r[item].make for r in registries if item in r] or [type(item)]
                    known[kind].update(*map(_fields_of, makes))
        names = {*FIELDS}.union(OUTSIDE, *(base.parameters for base in bases), *known.values())
        for name in self.axes:
            kind, _, parameter = name.rpartition(".")
            if parameter not in (known.get(kind, ()) if kind else names):
                for _, part in parts:
                    if parameter in vars(type(part)).keys() - _fields_of(type(part)):
                        raise unknown_parameter(type(part), parameter, names)
                own = {f"{kind}.{each}" for each in known.get(kind, ())}
                raise UnknownNameError.of("axis", name, own or names)


def _name(given: Any) -> str:
    name: str = read(str, given, "the name of an axis")
    return name


def _listed(name: str, values: Any) -> list[Any]:
    if isinstance(values, str | Mapping) or not hasattr(values, "__iter__"):
        raise ConfigError(
            f"axis {name!r}: expected a list of values, got {shown(values)}; write [ ]."
        )
    found = list(values)
    if not found:
        raise ConfigError(f"axis {name!r}: expected at least one value, got none.")
    return found


def _unboxed(value: Any) -> Any:
    """A NumPy number as a Python number, which parts require."""
    if hasattr(value, "shape") and hasattr(value, "tolist"):
        try:
            value = value.tolist()
        except RuntimeError:  # a tensor without values
            raise ConfigError(f"expected numbers on the axes, got {shown(value)}.") from None
        value = tuple(value) if isinstance(value, list) else value
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"expected finite numbers on the axes, got {shown(value)}.")
    if isinstance(value, int | str | list | tuple | dict):
        try:  # as keys and the store do
            str(plain(value)).encode()
        except (ValueError, RecursionError):
            raise ConfigError(
                f"expected axis values that can be stored as text, got {shown(value)}."
            ) from None
    return value


def _with_parts(name: str, value: Any) -> Any:
    """An axis value, with each table that describes a part replaced by the part."""
    if isinstance(value, Mapping):
        return resolve({name: dict(value)})[name]
    if isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
        return tuple(resolve({name: list(value)})[name])
    return value


def _fields_of(kind: Any) -> set[str]:
    return {f.name for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
