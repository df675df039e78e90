"""The plan of a grid: every name looked up, every cell checked and given its key; nothing runs."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokenred.analysis.measure.machine import describe_machine, model_device
from tokenred.analysis.study.cell import SETTINGS, Base, Cell, Setting, plain
from tokenred.analysis.study.design import Design, Point
from tokenred.analysis.study.facts import Facts
from tokenred.analysis.study.refs import KEYS
from tokenred.analysis.study.rows import DENSE, FAILED, SKIPPED, record
from tokenred.analysis.study.store import Store
from tokenred.core.errors import ConfigError, InputError, TokenredError
from tokenred.core.fingerprint import digest
from tokenred.core.tensors import check_device
from tokenred.reduced.cost import Cost
from tokenred.strategies.config import to_config
from tokenred.strategies.specs import at_budget

if TYPE_CHECKING:
    import pandas as pd

_UNSET = object()


class Plan:
    """All cells of a grid, checked.

    Attributes:
        cells: in the order of the grid.
        settings: what they run on, by their `Cell.place`.
        references: the cells they are compared with.
        results: the different cells by key, references first.
    """

    def __init__(
        self, design: Design, facts: Facts, engine: Sequence[Any], invalid: str = "raise"
    ) -> None:
        self.design, self.facts = design, facts
        self._engine = engine  # what else determines timings: its name, workers and threads
        self._places: dict[Any, tuple[int, str, TokenredError | None]] = {}
        self._machines: dict[str, dict[str, Any]] = {}
        references: dict[Any, Cell] = {}
        self.cells: list[Cell] = []
        self.settings: list[Setting] = []
        for position, point in design:
            base = design.base(point)
            cell = self._cell(position, point, base, design.budget(point))
            if cell.error is not None and invalid == "raise":
                raise _named(cell, f"cell {position}")
            if design.against is not None:
                own = design.against == "base"
                start = base if own else design.against
                share = design.budget(point) if own or start.share is None else start.share
                mark = (cell.place, id(start), share)
                if mark not in references:
                    references[mark] = self._reference(point, start, share)
                cell.reference = references[mark].key
            self.cells.append(cell)
        self.references = list({cell.key: cell for cell in references.values()}.values())
        self.results = {cell.key: cell for cell in self.references}
        for cell in self.cells:
            known = self.results.get(cell.key)
            if known is None or known.position < 0:  # a cell has more axes than a reference
                self.results[cell.key] = cell

    def __len__(self) -> int:
        """The number of cells; ``results`` has the distinct ones and the references."""
        return len(self.cells)

    def todo(
        self, store: Store, retry_failed: bool = False
    ) -> tuple[list[Cell], list[tuple[str, dict[str, Any]]]]:
        """The distinct cells without a result in a store, including skipped ones.

        And the keys of results that were stored with fewer axes than this grid has, with all axes.
        """
        known = store.status(list(self.results))
        missing, narrow = [], []
        for key, cell in self.results.items():
            status, stored = known.get(key, ("", "{}"))
            # One that was left out may be possible now.
            again = retry_failed if status == FAILED else status == SKIPPED and not cell.error
            if again or not status:
                missing.append(cell)
            elif not (axes := json.loads(stored)).keys() >= cell.axes.keys():
                narrow.append((key, {**cell.axes, **axes}))
        return missing, narrow

    def frame(self, store: Store | None) -> pd.DataFrame:
        """One row per cell, as in a study, with costs and whether it is done.

        Its ``attrs["references"]`` are the references that are no cells: strategy, GMACs, status.
        """
        import pandas as pd

        known = {} if store is None else store.status([*self.results])
        seen: set[str] = set()
        records = []
        for cell in self.cells:
            status = "skipped" if cell.error else "repeated" if cell.key in seen else "to do"
            seen.add(cell.key)
            setting = self.settings[cell.place]
            row = {**self.row(cell), "threads": setting.threads, "device": setting.device}
            costs = {} if cell.error else cost_columns(self.cost(cell))
            status = known.get(cell.key, (status, ""))[0]
            # Last, because pandas prints the first and the last columns.
            last = {"why": cell.why, "gmacs": costs.pop("gmacs", None), "status": status}
            records.append({**cell.axes, **record({**row, **costs}, {}), **last})
        frame = pd.DataFrame(records)
        others = [cell for cell in self.references if cell.key not in seen]
        frame.attrs["references"] = [
            (each.label, self.cost(each).gmacs, known.get(each.key, ("to do", ""))[0])
            for each in others
        ]
        return frame

    def cost(self, cell: Cell) -> Cost:
        """The cost of an image in a cell that its model can run."""
        assert cell.strategy is not None
        return self.facts.cost(self.settings[cell.place].model, cell.strategy)

    def row(self, cell: Cell) -> dict[str, Any]:
        """The columns of a row that are known before a cell runs, as in the store."""
        setting, strategy = self.settings[cell.place], cell.strategy
        model, data, size = setting.model, setting.data, setting.model.image_size
        facts = None if strategy is None else self.facts.model(model)
        own_size = facts.image_size if facts else ""
        return {
            "key": cell.key,
            "axes": cell.axes,
            "strategy": cell.label,
            "method": cell.method,
            "config": "" if strategy is None else json.dumps(to_config(strategy, strict=False)),
            "unused": "" if strategy is None else "; ".join(strategy.unused),
            "fingerprint": cell.fingerprint,
            "model": model.label,
            "weights": facts.weights if facts else "",
            "data": "" if data is None else data.label,
            "limit": setting.limit,
            "seed": setting.seed,
            "dtype": setting.dtype or (facts.dtype if facts else ""),
            "batch_size": setting.batch_size,
            "image_size": own_size if size is None else f"{size[0]}x{size[1]}",
            "compile": str(setting.compile).lower(),
        }

    def _reference(self, point: Point, start: Base, share: float | None) -> Cell:
        """What the cells of a setting are compared with, at their budget."""
        kept = {*SETTINGS, *["base"] * (self.design.against == "base")}
        kept |= {"budget"} if share == point.get("budget") and start.method != DENSE else set()
        point = {name: value for name, value in point.items() if name in kept}
        if self.design.reference is not None:
            point["model"] = self.design.reference
        made = self._cell(-1, point, start, share)
        if made.error is not None:
            raise _named(made, "the reference")
        return made

    def _cell(self, position: int, point: Point, base: Base, share: float | None) -> Cell:
        place, prefix, error = self._place(point)
        axes = {name: plain(value) for name, value in point.items()}
        share = None if base.method == DENSE else share
        label, at = base.written(point), "" if share is None else f"@{share:g}"
        strategy, fingerprint = None, ""
        if error is None:
            ref = self.settings[place].model
            try:
                if base.method != DENSE and hasattr(ref.module, "stands_for"):
                    raise ConfigError(f"{ref.label} runs unchanged; use it with the base 'dense'.")
                strategy = base.build(point)
                label = base.written(point, strategy)
                if share is not None:
                    strategy = at_budget(strategy, share * self.facts.model(ref).gmacs)
                fingerprint = self.facts.fingerprint(ref, strategy)
            except TokenredError as found:
                error = found
        label += at
        key = digest(prefix + (fingerprint or f"{label} {json.dumps(axes)}"))
        return Cell(position, axes, label, base.method, place, strategy, fingerprint, key, error)

    def _place(self, point: Point) -> tuple[int, str, TokenredError | None]:
        """The setting of a point, its part of the key, and why it is impossible here, if it is."""
        mark = tuple(point.get(name, _UNSET) for name in SETTINGS)
        if mark not in self._places:
            setting = self.design.setting(point)
            model, data = setting.model, setting.data
            identity, error = "", self._impossible(setting)
            try:
                identity = self.facts.model(model).identity
            except InputError as found:
                if model.image_size is None:
                    raise
                error = found
            told = (
                identity or [model.label, model.image_size],
                "" if data is None or not identity else self.facts.data(data, model),
                setting.dtype,
                setting.limit,
                setting.seed,
                [metric.told(self._how(setting)) for metric in self.design.metrics],
                KEYS,
                *([setting.attention] * (setting.attention != "auto")),
            )
            if setting not in self.settings:
                self.settings.append(setting)
            self._places[mark] = self.settings.index(setting), json.dumps(told), error
        return self._places[mark]

    def _impossible(self, setting: Setting) -> TokenredError | None:
        """What this machine lacks for a setting; nothing is known about other workers."""
        if self._engine[0] not in ("serial", "processes") or setting.device is None:
            return None
        try:
            check_device(setting.device)
        except ConfigError as error:
            return error
        return None

    def _how(self, setting: Setting) -> dict[str, Any]:
        """What else determines measurements, apart from model, data and precision."""
        how: dict[str, Any] = {"batch_size": setting.batch_size}
        if not any(metric.timed for metric in self.design.metrics):
            return how
        module = setting.model.module
        device = setting.device or ("cpu" if module is None else str(model_device(module)))
        if device not in self._machines:
            self._machines[device] = machine_of(device)
        reference = self.design.reference
        how |= {
            "compile": str(setting.compile).lower(),
            "against": "" if reference is None else self.facts.model(reference).identity,
            "channels_last": self.design.channels_last,
            "engine": self._engine,
            **self._machines[device],
        }
        return how if setting.threads is None else {**how, "threads": setting.threads}


def machine_of(device: Any) -> dict[str, Any]:
    """The machine as it is in a row; only names for a device that is elsewhere."""
    host = {"host": platform.node()}
    try:
        return {**describe_machine(device), **host}
    except (RuntimeError, AssertionError):
        return {"device": str(device), **host}


def cost_columns(cost: Cost) -> dict[str, Any]:
    """The columns of a row that say what an image costs; an unknown overhead is None, not 0."""
    return {
        "gmacs": cost.gmacs,
        "overhead_gmacs": None if cost.unknown else cost.overhead_gmacs,
        "tokens": [cost.layers[0].tokens_in, *(layer.tokens_out for layer in cost.layers)],
    }


def _named(cell: Cell, what: str) -> TokenredError:
    """The error of a cell, with what it is about."""
    assert cell.error is not None
    return type(cell.error)(f"{what}, {cell.label}: {cell.error}")
