"""The plan of a grid: every name looked up, every cell checked and given its key; nothing runs."""

from __future__ import annotations

import gc
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch

from tokenred.analysis.study.axes import SETTINGS, Axes
from tokenred.analysis.study.building import DENSE, Base, Builder, read_base, resolved
from tokenred.analysis.study.cell import FAILED, SKIPPED, Cell, Setting
from tokenred.analysis.study.facts import Facts
from tokenred.analysis.study.keys import Checker, Fingerprints, Marks, marks_of
from tokenred.analysis.study.metrics import Metric, read_metrics
from tokenred.analysis.study.refs import (
    KEYS,
    DataRef,
    ModelRef,
    precision_of,
    read_data,
    read_model,
)
from tokenred.core.errors import (
    ConfigError,
    InputError,
    PartError,
    TokenredError,
    UnknownNameError,
    shown,
)
from tokenred.core.fingerprint import digest
from tokenred.core.values import Count, PartOf, Size, read
from tokenred.reduced.cost import Cost
from tokenred.strategies.specs import at_budget
from tokenred.strategies.strategy import Strategy

if TYPE_CHECKING:
    import pandas as pd

    from tokenred.analysis.study.store import Store

__all__ = ["Design", "Plan", "cost_columns"]

_AGAINST = (DENSE, "base")
_COMPILERS = ("c++", "g++", "clang++", "cl")
_KINDS: dict[str, Any] = {
    "limit": Size | None, "seed": Count, "budget": PartOf | None, "batch_size": Size,
    "threads": Size | None, "device": str | None,
}  # fmt: skip


class Design:
    """What the arguments of a grid mean; nothing is loaded.

    Args:
        told: arguments of `tokenred.analysis.Grid` by name.

    Attributes:
        axes: the points.
        builder: makes their strategies.
        models, datasets: all that are named, by their places in a `Setting`.
        metrics: to be measured.
        against: ``"dense"``, ``"base"`` or None.
        reference: the model that timings are taken against, or None for each cell's own.

    Raises:
        TokenredError: for whatever cannot be meant.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._split, self._class_map = told["split"], told["class_map"]
        self._known: dict[tuple[str, str], Any] = {}
        self._sized: dict[tuple[ModelRef, Any], ModelRef] = {}
        self.models: list[ModelRef] = []
        self.datasets: list[DataRef | None] = []
        self.channels_last = bool(told["channels_last"])
        self.axes = Axes(told["axes"], told["cells"], told["where"], self._read)
        self._default = {
            name: self._read(name, told[name])
            for name in ("base", *SETTINGS, "budget")
            if name not in ("base", "model", "threads") or told.get(name) is not None
        }
        for name in ("base", "model"):
            if name not in self._default and not self.axes.covers(name):
                raise ConfigError(f"expected {name}= for the grid, or {name!r} on an axis.")
        if told["against"] not in (None, *_AGAINST):
            raise UnknownNameError.of("reference to compare with", told["against"], _AGAINST)
        self.against: str | None = told["against"]
        reference = told["reference"]
        self.reference = None if reference is None else self._read("model", reference)
        if self.reference is not None:
            self.place(self.reference)
        self.metrics: tuple[Metric, ...] = read_metrics(told["metrics"])
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
        chosen["model"] = self.place(chosen["model"], chosen.pop("image_size"))
        chosen["data"] = self.datasets.index(chosen["data"])
        return Setting(**chosen)

    def place(self, model: ModelRef, size: tuple[int, int] | None = None) -> int:
        """The place of a model at an image size."""
        if (model, size) not in self._sized:
            sized = model
            if size is not None:
                sized = ModelRef(model.label, model.arguments, model.module, size)
            self.models.append(sized)
            self._sized[model, size] = sized
        return self.models.index(self._sized[model, size])

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
        if name == "image_size":
            return _sides(value)
        if name == "compile" and value is not False:
            from tokenred.analysis.measure.clock import Compile

            return read(Compile, value, name)
        if name in _KINDS:
            return read(
                _KINDS[name], str(value) if isinstance(value, torch.device) else value, name
            )
        return resolved(name, value)

    def _named(self, name: str, value: Any) -> Base | ModelRef | DataRef | None:
        if name == "base":
            return read_base(value)
        if name == "model":
            return read_model(value)
        self.datasets.append(
            None if value is None else read_data(value, self._split, self._class_map)
        )
        return self.datasets[-1]


def _sides(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = (value, value) if isinstance(value, int) else value
    if not isinstance(sides, list | tuple) or len(sides) != 2:
        raise ConfigError(
            f"expected an image size as a side or (height, width), got {shown(value)}."
        )
    height, width = (read(Size, side, "image_size") for side in sides)
    return height, width


class Plan:
    """All cells of a grid, checked.

    Args:
        design: of the grid.
        facts: about its models and data.
        engine: what determines timings besides the setting: name, workers and threads.
        invalid: ``"raise"`` at a cell that its model cannot do, or ``"skip"`` it.

    Attributes:
        cells: in the order of the grid.
        references: what they are compared with.
        results: the different cells by key, references first.

    Raises:
        TokenredError: for a cell that its model cannot do, naming it.
    """

    def __init__(
        self, design: Design, facts: Facts, engine: Sequence[Any], invalid: str = "raise"
    ) -> None:
        self._design = design
        self._facts = facts
        self._engine = engine
        self._fingerprints = Fingerprints()
        self._checkers: dict[int, Checker] = {}
        self._places: dict[Any, tuple[Setting, str, TokenredError | None]] = {}
        self._machines: dict[str, dict[str, Any]] = {}
        self._known_references: dict[Any, str | None] = {}
        self.references: list[Cell] = []
        self.cells: list[Cell] = []
        dense = read_base(DENSE)
        # Thousands of cells that stay would keep the garbage collector busy.
        collecting = gc.isenabled()
        gc.disable()
        try:
            for position, assigned in design.axes:
                cell = self._cell(position, assigned, dense)
                if cell.error is not None and invalid == "raise":
                    raise _named(cell, f"cell {position}")
                self.cells.append(cell)
        finally:
            if collecting:
                gc.enable()
        self.results: dict[str, Cell] = {}
        for cell in (*self.references, *self.cells):
            self.results.setdefault(cell.key, cell)

    def __len__(self) -> int:
        """How many cells there are; ``results`` holds the different ones, and the references."""
        return len(self.cells)

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes."""
        return self._design.axes.names

    def cost(self, cell: Cell) -> Cost:
        """What an image costs in a cell that its model can do."""
        assert cell.strategy is not None
        return self._checker(cell.setting).cost(cell.strategy)

    def missing(self, store: Store, retry_failed: bool = False) -> list[Cell]:
        """The different cells of which a store has no result, those to be left out included."""
        known = store.status(list(self.results))

        def is_open(cell: Cell) -> bool:
            status, _ = known.get(cell.key, ("", ""))
            # One that was left out may be possible now.
            return (
                not status
                or (status == FAILED and retry_failed)
                or (status == SKIPPED and not cell.error)
            )

        return [cell for cell in self.results.values() if is_open(cell)]

    def narrow(self, store: Store) -> list[tuple[str, dict[str, Any]]]:
        """Keys of results that are stored under fewer axes than this grid has, and all of them."""
        known = store.status([cell.key for cell in self.cells])
        found = {}
        for cell in self.cells:
            axes = json.loads(known[cell.key][1]) if cell.key in known else None
            if axes is not None and cell.key not in found and not axes.keys() >= cell.axes.keys():
                found[cell.key] = {**cell.plain_axes, **axes}
        return list(found.items())

    def frame(self, store: Store | None) -> pd.DataFrame:
        """One row a cell: axes, strategy, settings, GMACs, tokens, and whether it is done.

        Args:
            store: says what is done already.
        """
        import pandas as pd

        known = {} if store is None else store.status([cell.key for cell in self.cells])
        seen: set[str] = set()
        rows = []
        for cell in self.cells:
            row = {**cell.plain_axes, "strategy": cell.label, "method": cell.base.method}
            row |= self.columns(cell)
            if cell.error is None:
                row |= cost_columns(self.cost(cell))
            status = "skipped" if cell.error else "repeated" if cell.key in seen else "to do"
            seen.add(cell.key)
            status = known.get(cell.key, (status, ""))[0]
            rows.append({**row, "status": status, "why": cell.why, "key": cell.key})
        return pd.DataFrame(rows)

    def columns(self, cell: Cell) -> dict[str, Any]:
        """The columns of a row that say what a cell runs on."""
        setting, model = cell.setting, self._design.models[cell.setting.model]
        data, size = self._design.datasets[setting.data], model.image_size
        own = "" if cell.strategy is None else self._facts.model(model).image_size
        return {
            "model": model.label,
            "data": "" if data is None else data.label,
            "limit": setting.limit,
            "seed": setting.seed,
            "dtype": setting.dtype,
            "batch_size": setting.batch_size,
            "image_size": own if size is None else f"{size[0]}x{size[1]}",
            "compile": str(setting.compile).lower(),
            "threads": setting.threads,
            "device": setting.device,
        }

    def _checker(self, setting: Setting) -> Checker:
        if setting.model not in self._checkers:
            facts = self._facts.model(self._design.models[setting.model])
            self._checkers[setting.model] = Checker(facts)
        return self._checkers[setting.model]

    def _cell(self, position: int, assigned: Mapping[str, Any], dense: Base) -> Cell:
        design = self._design
        base, share = design.base(assigned), design.budget(assigned)
        cell = self._make(position, base, assigned, base.share if share is None else share)
        if design.against is None or cell.setting is None:
            return cell
        mark = (cell.setting, id(base))
        if mark not in self._known_references:
            kept = SETTINGS if design.against == DENSE else (*SETTINGS, "base")
            same = {name: value for name, value in assigned.items() if name in kept}
            if design.reference is not None:
                same["model"] = design.reference
            start = dense if design.against == DENSE else base
            made = self._make(-1, start, same, start.share)
            if made.error is not None:
                raise _named(made, "the reference")
            if made.key not in {known.key for known in self.references}:
                self.references.append(made)
            self._known_references[mark] = made.key
        cell.reference = self._known_references[mark]
        return cell

    def _make(
        self, position: int, base: Base, assigned: Mapping[str, Any], share: float | None
    ) -> Cell:
        setting, prefix, error = self._place(assigned)
        if base.method == DENSE:
            share = None
        strategy, fingerprint = None, ""
        if error is None:
            ref = self._design.models[setting.model]
            try:
                if base.method != DENSE and hasattr(ref.module, "stands_for"):
                    raise ConfigError(f"{ref.label} runs as it is; it goes with the base 'dense'.")
                strategy = self._design.builder(base, assigned)
                if share is not None:
                    strategy = at_budget(strategy, share * self._facts.model(ref).gmacs)
                marks = marks_of(strategy)
                fingerprint = self._fingerprint(strategy, marks)
                self._checker(setting).check(strategy, marks)
            except TokenredError as found:
                error = found
        cell = Cell(position, assigned, base, share, setting, strategy, fingerprint, "", error)
        told = fingerprint or f"{cell.label} {cell.axes_json}"
        cell.key = digest(prefix + told)
        return cell

    def _fingerprint(self, strategy: Strategy, marks: Marks) -> str:
        try:
            return self._fingerprints(strategy, marks)
        except PartError:
            if self._facts.keyed:
                raise
            return uuid4().hex[:16]

    def _place(self, assigned: Mapping[str, Any]) -> tuple[Setting, str, TokenredError | None]:
        """What a point runs on, what of it goes into the key, and why that is impossible here."""
        mark = tuple(assigned.get(name, _DEFAULT) for name in SETTINGS)
        if mark not in self._places:
            setting = self._design.setting(assigned)
            model = self._design.models[setting.model]
            data = self._design.datasets[setting.data]
            identity, error = "", self._impossible(setting)
            try:
                identity = self._facts.model(model).identity
            except InputError as found:
                if model.image_size is None:
                    raise
                error = found
            told = (
                identity or [model.label, model.image_size],
                "" if data is None or not identity else self._facts.data(data, model).identity,
                setting.dtype,
                setting.limit,
                setting.seed,
                [metric.told(self._how(setting)) for metric in self._design.metrics],
                KEYS,
            )
            self._places[mark] = setting, json.dumps(told), error
        return self._places[mark]

    def _impossible(self, setting: Setting) -> TokenredError | None:
        """What this machine lacks for a setting; of workers elsewhere nothing is known."""
        if self._engine[0] != "serial" or setting.device is None:
            return None
        from tokenred.analysis.measure.machine import check_device

        try:
            device = check_device(setting.device)
        except ConfigError as error:
            return error
        assert device is not None
        if device.type == "cpu" and setting.compile and not any(map(shutil.which, _COMPILERS)):
            return ConfigError(
                "torch.compile needs a C++ compiler for the CPU, and none is on the path."
            )
        if device.type not in ("cpu", "cuda") and any(
            m.name == "memory" for m in self._design.metrics
        ):
            return ConfigError(
                f"peak memory can be measured on cpu and cuda, not on {device.type}."
            )
        return None

    def _how(self, setting: Setting) -> dict[str, Any]:
        """What measurements are determined by besides model, data and precision."""
        how: dict[str, Any] = {"batch_size": setting.batch_size}
        if not any(metric.timed for metric in self._design.metrics):
            return how
        from tokenred.analysis.measure.machine import describe_machine, model_device

        module = self._design.models[setting.model].module
        device = setting.device or ("cpu" if module is None else str(model_device(module)))
        if device not in self._machines:
            try:
                self._machines[device] = dict(describe_machine(device))
            except (RuntimeError, AssertionError):  # not of this machine
                self._machines[device] = {"device": device}
        reference = self._design.reference
        against = "" if reference is None else self._facts.model(reference).identity
        how |= {
            "compile": str(setting.compile).lower(),
            "against": against,
            "channels_last": self._design.channels_last,
            "engine": self._engine,
            "host": platform.node(),
        }
        threads = {} if setting.threads is None else {"threads": setting.threads}
        return how | self._machines[device] | threads


_DEFAULT = object()


def cost_columns(cost: Cost) -> dict[str, Any]:
    """The columns of a row that say what an image costs."""
    return {
        "gmacs": cost.gmacs,
        "overhead_gmacs": cost.overhead_gmacs,
        "tokens": [cost.layers[0].tokens_in, *(layer.tokens_out for layer in cost.layers)],
    }


def _named(cell: Cell, what: str) -> TokenredError:
    """The error of a cell, with what it is about."""
    assert cell.error is not None
    return type(cell.error)(f"{what}, {cell.label}: {cell.error}")
