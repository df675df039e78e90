"""A grid, read: every name looked up, every number checked, nothing loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tokenred.analysis.study.axes import SETTINGS, Axes
from tokenred.analysis.study.bases import DENSE, Base, read_base
from tokenred.analysis.study.building import Builder, resolved
from tokenred.analysis.study.cell import Setting
from tokenred.analysis.study.loading import precision_of
from tokenred.analysis.study.metrics import Metric, read_metrics
from tokenred.analysis.study.refs import DataRef, ModelRef, read_data, read_model
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.core.values import Count, PartOf, Size, read

__all__ = ["AGAINST", "Design"]

AGAINST = (DENSE, "base")
_VALUES: dict[str, Any] = {"limit": Size | None, "seed": Count, "budget": PartOf | None}


class Design:
    """What the arguments of a grid mean.

    Args:
        axes, cells, where, metrics, against: of `tokenred.analysis.Grid`.
        split, class_map: likewise, of the data.
        default: likewise ``base``, ``model``, ``data``, ``dtype``, ``limit``, ``seed`` and
            ``budget``, which hold where no axis says otherwise.

    Attributes:
        axes: the points.
        builder: makes their strategies.
        models, datasets: all that are named, by their places in a `Setting`.
        metrics: to be measured.
        against: ``"dense"``, ``"base"`` or None.

    Raises:
        TokenredError: for whatever cannot be meant.
    """

    def __init__(
        self,
        axes: Mapping[str, Sequence[Any]] | None,
        cells: Sequence[Mapping[str, Any]] | None,
        where: Callable[[dict[str, Any]], object] | None,
        metrics: Any,
        against: str | None,
        split: str | None,
        class_map: Any,
        default: Mapping[str, Any],
    ) -> None:
        self._split, self._class_map = split, class_map
        self._known: dict[tuple[str, str], Any] = {}
        self.models: list[ModelRef] = []
        self.datasets: list[DataRef | None] = []
        self.axes = Axes(axes, cells, where, self._read)
        self._default = {
            name: self._read(name, value)
            for name, value in default.items()
            if value is not None or name in ("data", "limit", "dtype", "budget")
        }
        for name in ("base", "model"):
            if name not in self._default and len(self.axes.values(name)) < len(self.axes):
                raise ConfigError(f"expected {name}= for the grid, or {name!r} on an axis.")
        if against is not None and against not in AGAINST:
            raise UnknownNameError.of("reference to compare with", against, AGAINST)
        self.against = against
        self.metrics: tuple[Metric, ...] = read_metrics(metrics)
        if None in self.datasets:
            for metric in self.metrics:
                if metric.needs_data:
                    raise ConfigError(f"metric {metric.name!r} needs images; pass data=.")
        bases = [*self.axes.values("base"), self._default.get("base")]
        self.builder = Builder([base for base in bases if base is not None], self.axes)

    def base(self, assigned: Mapping[str, Any]) -> Base:
        """What a point starts from."""
        found = assigned.get("base", self._default.get("base"))
        assert isinstance(found, Base)
        return found

    def budget(self, assigned: Mapping[str, Any]) -> float | None:
        """The share of the dense model's GMACs that a point may cost."""
        share: float | None = assigned.get("budget", self._default["budget"])
        return share

    def setting(self, assigned: Mapping[str, Any]) -> Setting:
        """What a point runs on."""
        chosen = {name: assigned.get(name, self._default.get(name)) for name in SETTINGS}
        chosen["model"] = self.models.index(chosen["model"])
        chosen["data"] = self.datasets.index(chosen["data"])
        return Setting(**chosen)

    def _read(self, name: str, value: Any) -> Any:
        """A value of an axis, or a default, as what it means."""
        if name in ("base", "model", "data"):
            mark = (name, value) if isinstance(value, str) else (name, f"object {id(value)}")
            if mark not in self._known:
                # With the value itself, whose address is not given to another as long as it lives.
                self._known[mark] = value, self._named(name, value)
            return self._known[mark][1]
        if name == "dtype":
            text = str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else value
            precision_of(text)
            return text
        if name in _VALUES:
            return read(_VALUES[name], value, name)
        return resolved(name, value)

    def _named(self, name: str, value: Any) -> Base | ModelRef | DataRef | None:
        if name == "base":
            return read_base(value)
        if name == "model":
            self.models.append(read_model(value))
            return self.models[-1]
        self.datasets.append(
            None if value is None else read_data(value, self._split, self._class_map)
        )
        return self.datasets[-1]
