"""Running a grid, and its results: a frame, comparisons, a table."""

from __future__ import annotations

import math
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime, timezone
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from tokenred.analysis.result import (
    ALIKE,
    Columns,
    Result,
    count,
    figure_columns,
    figure_notes,
    number,
    reference_name,
    resolution,
    table_of,
    word,
)
from tokenred.analysis.study.cell import (
    PARTS,
    SETTINGS,
    Cell,
    EngineError,
    MetricNameError,
    Outcome,
    StudyInterruptedError,
    outcome,
    plain,
)
from tokenred.analysis.study.database import StoreError
from tokenred.analysis.study.plan import Plan
from tokenred.analysis.study.pool import Engine
from tokenred.analysis.study.rows import (
    DENSE,
    DONE,
    FAILED,
    SKIPPED,
    extra_columns,
    record,
    tidy,
    unused_notes,
)
from tokenred.analysis.study.store import Store
from tokenred.analysis.study.worker import Runner
from tokenred.core.errors import InputError, UnknownNameError
from tokenred.core.progress import progress_bar

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

Record = Mapping[str, Any]
_MOST_EXTRA, _MOST_NAMED = 4, 3
_MANY = 3  # cells, of which the best is too good
# How the error of a cell starts after which no other can be measured either.
_REFUSED = f"{MetricNameError.__name__}: "
# How the names of figures begin that have columns of their own.
_FIGURES = (
    "difference", "p_value", "unreadable", "images_per_second", "speedup", "realised", "allowed",
    "dense_", "ms_q", "pairs", "peak_bytes",
)  # fmt: skip


class Study(Result):
    """The results of a grid, one for each of its cells; ``print`` shows them, best first.

    Created by `tokenred.analysis.Grid.run`.

    Attributes:
        store: for looking up predictions, or rows of other grids.
        level: level of the paired intervals.
        axes: names of the axes.
        against: name of the reference of the cells, or None.
    """

    def __init__(self, plan: Plan, store: Store, level: float = 0.95) -> None:
        self.store, self.level = store, level
        self.axes, self._plan = plan.design.axes, plan
        # Bases differ from cell to cell; any other reference differs in its budget only.
        names = ["base"] if plan.design.against == "base" else [c.label for c in plan.references]
        self.against = reference_name(names) or None

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """One dictionary per cell, in the order of the grid."""
        cells = self._plan.cells
        rows = {row["key"]: row for row in self.store.rows([cell.key for cell in cells])}
        return [
            record(rows[cell.key], cell.axes)
            | {"strategy": cell.label}
            | self._difference(rows[cell.key], cell.reference)
            for cell in cells
            if cell.key in rows
        ]

    def _difference(self, row: Record, reference: str | None) -> dict[str, Any]:
        if reference is None:
            return {}
        return paired(self.store, row, reference, self._names[reference], self.level)

    @cached_property
    def _names(self) -> dict[str, str]:
        """The names of the references by key, as the user writes them."""
        return {cell.key: cell.label for cell in self._plan.references}

    @property
    def frame(self) -> pd.DataFrame:
        """A tidy pandas frame, one row per cell, in the order of the grid.

        Cells with the same result (such as M with the graph ``none``) have a row each. With a
        reference, ``difference`` and its interval are in percentage points from it:
        ``difference_from``, at ``difference_level``; a reference has no difference from itself.
        """
        return tidy(self.records, self.axes)

    @property
    def with_references(self) -> pd.DataFrame:
        """The references that are no cells, if accuracies were compared, and the frame."""
        cells = {row["key"] for row in self.records}
        own = [r for r in self.references if "difference_from" in r and r["key"] not in cells]
        return tidy([*own, *self.records], self.axes)

    @cached_property
    def references(self) -> list[dict[str, Any]]:
        """The references of the cells, one dictionary for each setting."""
        axes = {cell.key: cell.axes for cell in self._plan.references}
        rows = {row["key"]: row for row in self.store.rows(list(axes))}
        return [
            record(rows[key], own) | self._difference(rows[key], key)
            for key, own in axes.items()
            if key in rows
        ]

    def _parts(self, key: str) -> dict[str, Any]:
        """What a reference has in place of the parts on the axes, as text."""
        cell = self._plan.results[key]
        made = cell.strategy
        if made is None or not made.single or cell.method == DENSE:
            return {}
        return {name: plain(getattr(made, name)) for name in self.axes if name in PARTS}

    def failed(self) -> list[dict[str, Any]]:
        """The cells that raised."""
        return [row for row in self.records if row["status"] != DONE]

    def _unequal_costs(self) -> list[str]:
        """A line if cells cost more or less than the strategy that they are compared with."""
        costs = {row["key"]: row.get("gmacs") or 0.0 for row in self.records}
        theirs = {row["key"]: row["gmacs"] for row in self.references if row["method"] != DENSE}
        pairs = [(costs.get(c.key), theirs.get(c.reference or "")) for c in self._plan.cells]
        ratios = [own / other for own, other in pairs if own and other]
        if all(1 / ALIKE <= ratio <= ALIKE for ratio in ratios):
            return []
        return [
            f"The cells cost {min(ratios):.2f} to {max(ratios):.2f} times as much as "
            f"{self.against}, so a difference is not that of the method alone; set a budget to "
            "compare at equal cost."
        ]

    def doubts(self) -> list[str]:
        """A line if the dense model does no better than a guess."""
        for row in (*self.references, *self.records):
            with suppress(InputError):  # its accuracy is that of another metric
                if row["method"] == DENSE and row.get("top1") is not None:
                    classes = len(set(self.store.predictions(row["key"]).label.tolist()))
                    if classes > 1 and row["top1"] <= 100 / classes:
                        return [
                            f"The dense model is right on {row['top1']:.1f}% of the images, no "
                            f"more than a guess among their {classes} classes: check that the "
                            "model was trained on this data, and the indices of the classes."
                        ]
        return []

    def table(self, by: str | None = None, most: int | None = 40) -> Table:
        """The best cells for a terminal.

        Args:
            by: the column to sort by, the highest first; None for ``top1``, or for the fewest GMACs
                if it was not measured.
            most: maximum number of rows; None for all.

        Raises:
            UnknownNameError: for an unknown column.
        """
        records = _sorted(self.records, by)
        done = [row for row in records if row["status"] == DONE]
        varied = [n for n in self.axes if len({repr(row.get(n)) for row in records}) > 1]
        names = varied or ["strategy"]
        columns: Columns = {n: partial(_value, name=n) for n in names}
        columns |= figure_columns(done, self.against, self.level)
        for name in _extra(done, self.axes):
            columns[name.replace("_", " ")] = partial(number, name=name, places=3)
        cells = {row["key"] for row in done}
        first: list[Record] = [
            row | self._parts(row["key"]) for row in self.references if row["key"] not in cells
        ]
        first += [row for row in done if row["key"] in self._names]
        for at, row in enumerate(first):
            own = word(row, names[0])
            if own != self.against:
                other = self._names[row["key"]] if self.against != "base" else "base"
                mark = "reference" if own and other not in ("base", DENSE) else other
                first[at] = {**row, names[0]: f"{own} ({mark})".strip()}
        rest = [row for row in done if row["key"] not in self._names]
        found = table_of(columns, [*first, *rest[:most]], left=len(names), dim=len(first))
        if hidden := len(rest[most:]) if most is not None else 0:
            found.caption = f"… and {count(hidden, 'more cell')}"
        return found

    def footnotes(self) -> list[str]:
        """The number of cells, which of them failed, and what produced the rows."""
        records, failed = self.records, self.failed()
        results = len({row["key"] for row in records})
        distinct = "all distinct" if results == len(records) else f"{results} distinct"
        kinds = Counter(row["status"] for row in failed)
        told = [count(len(records), "cell"), *[distinct] * (len(records) > 1)]
        lines = [", ".join([*told, *(f"{n} {status}" for status, n in kinds.items())])]
        done = [row for row in _sorted(records, None) if row["status"] == DONE]
        if first := next(iter(done), None):
            images = ""
            if "images" in first:
                images = f"{first['images']} images of {_shared(done, 'data')}, "
            shared = ", ".join(f"{n} {_shared(done, n)}" for n in ("model", "weights", "seed"))
            lines[0] += (
                f"; {images}{shared}; tokenred {first['tokenred']}, torch {first['torch']}, timm "
                f"{first['timm']}."
            )
            if "top1" in first and set(self.axes).difference(SETTINGS):
                varied = [name for name in self.axes if name in SETTINGS]
                best = {
                    r["key"]: ", ".join([r["strategy"], *(f"{n} {word(r, n)}" for n in varied)])
                    for r in done
                    if r.get("top1") == first["top1"]
                }
                told = list(best.values())[:_MOST_NAMED]
                more = "; …" * (len(best) > len(told))
                tie = f"{len(best)} cells tie: " * (len(best) > 1)
                lines.append(f"Best: {tie}{'; '.join(told)}{more}.")
                if not tie and results >= _MANY:
                    lines[-1] += (
                        f" The best of {results} on the same images probably looks better than it "
                        "is: confirm it on others that the model was not trained on (another "
                        "split; or, if these are few of many, another seed)."
                    )
        lines += self._unequal_costs()
        timed = [*records, *self.references]
        lines += figure_notes([row for row in timed if row["status"] == DONE])
        lines += filter(None, [resolution(records, self.level), *self.doubts()])
        lines += unused_notes(records)
        lines += [f"{row['status']}: {row['strategy']}: {row['error']}" for row in failed[:5]]
        if len(failed) > 5:
            lines.append(f"and {len(failed) - 5} more that failed or were skipped.")
        if self.store.path is not None:
            lines.append(f"Stored in {self.store.path}.")
        return lines


def paired(store: Store, row: Record, reference: str, name: str, level: float) -> dict[str, Any]:
    """How a row differs from a reference, and what a reader of the CSV needs to know.

    A reference has no difference from itself, only the words.
    """
    own = row["key"] == reference
    gap = {} if own else store.difference(row["key"], reference, level)
    if not gap and not (own and "top1" in row):
        return {}
    return gap | {"difference_from": name, "difference_level": level}


def _shared(rows: Sequence[Record], name: str) -> str:
    """The different values of a column, or their number."""
    found = list(dict.fromkeys(str(row[name]) for row in rows))
    return ", ".join(found) if len(found) <= _MOST_NAMED else f"({len(found)} different)"


def _value(row: Record, name: str) -> str:
    """A value on an axis; what a row has none of is empty."""
    return "none" if row.get(name, "") is None else word(row, name)


def _sorted(records: Sequence[Record], by: str | None) -> list[Record]:
    """The best first, those without a number last."""
    if by is None:
        by = "top1" if any(row.get("top1") is not None for row in records) else ""
    elif records and not any(by in row for row in records):
        raise UnknownNameError.of("column", by, {name for row in records for name in row})

    def order(row: Record) -> tuple[float, float]:
        value = row.get(by) if by else None
        good = float(value) if isinstance(value, int | float) else -math.inf
        return (-good, float(row.get("gmacs") or math.inf))

    return sorted(records, key=order)


def _extra(records: Sequence[Record], axes: Sequence[str]) -> list[str]:
    """Numbers of further metrics."""
    names = [n for n in extra_columns(records, axes) if not n.startswith(_FIGURES)]
    numbers = [n for n in names if any(isinstance(row.get(n), int | float) for row in records)]
    return numbers[:_MOST_EXTRA]


def run_plan(
    plan: Plan,
    store: Store,
    engine: Engine,
    *,
    raising: bool = False,
    retry_failed: bool = False,
    wait: float = 0.0,
    level: float = 0.95,
    progress: bool = True,
) -> Study:
    """Run the cells of a plan that are not in the store; arguments as in `tokenred.analysis.Grid`.

    Raises:
        StoreError, EngineError, StudyInterruptedError: finished results are stored.
        MetricNameError: if a metric returns a name with another meaning in a row.
    """
    study = Study(plan, store, level)
    if any(plan.todo(store, retry_failed)):
        with store.writing(wait):
            plan.facts.keep(store)
            # Another grid may have been busy meanwhile.
            missing, narrow = plan.todo(store, retry_failed)
            store.set_axes(narrow)
            _keep_plan(plan, store)
            _run_cells(plan, store, engine, raising, missing, progress)
            _ = study.records  # compares each cell with its reference, for the next start
    elif not store.readonly:
        with suppress(StoreError):  # for a quick start next time
            plan.facts.keep(store)
            _keep_plan(plan, store)
    return study


def _keep_plan(plan: Plan, store: Store) -> None:
    cells = [(cell.key, cell.axes, cell.label) for cell in plan.cells]
    store.plan(plan.design.name, list(plan.results), cells)


def _run_cells(
    plan: Plan, store: Store, engine: Engine, raising: bool, missing: list[Cell], progress: bool
) -> None:
    """Run cells, and write a row for each as soon as it is done."""
    design, facts, name = plan.design, plan.facts, plan.design.name
    if design.reference is not None:
        facts.model(design.reference)
    runner = Runner(
        plan.settings, facts.planned, design.metrics, design.axes, design.channels_last, raising,
        design.loaders, design.room, design.reference, facts.loaded,
    )  # fmt: skip
    common = {"study": name, "engine": engine.name, "commit": _commit()}

    def write(found: list[tuple[Cell, Outcome]]) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        store.write([{**plan.row(c), **o, "created": now, **common} for c, o in found])

    running = {cell.key: cell for cell in missing if cell.error is None}
    stored, failed = len(plan.results) - len(missing), 0
    whole = stored + len(running)
    bar = progress_bar(whole, name, "cells", progress, initial=stored)
    stream = engine.run(runner, list(running.values()))
    try:
        with bar, closing(stream):  # type: ignore[type-var]
            for found in stream:
                if refused := [o["error"] for o in found if o["error"].startswith(_REFUSED)]:
                    raise MetricNameError(refused[0].removeprefix(_REFUSED))
                write([(running.pop(each["key"]), each) for each in found])
                failed += sum(each["status"] == FAILED for each in found)
                if failed:
                    bar.set_postfix(failed=failed, refresh=False)
                bar.update(len(found))
        left_out = [cell for cell in missing if cell.error is not None]
        write([(cell, outcome(cell.key, SKIPPED, error=cell.why)) for cell in left_out])
    except KeyboardInterrupt as stop:
        done = f"{whole - len(running)} of {whole} results (cells and references)"
        raise StudyInterruptedError(done, str(store.path or "memory")) from stop
    if running:
        raise EngineError(
            f"engine {engine.name!r} ended without outcomes for {len(running)} cells; start the "
            "grid again."
        )


def _commit() -> str:
    """The commit of the working directory, with ``+`` if files differ from it; "" without one."""
    # The folder may be somebody else's, and its settings name programs to run.
    command = ["git", "-c", "core.fsmonitor=false", "describe", "--always", "--exclude=*",
               "--abbrev=40", "--dirty=+"]  # fmt: skip
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ran.stdout.strip()
