"""A finished grid: its frame, its comparisons, its table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from tokenred.analysis.result import Result, count, interval, number, resolution, table_of
from tokenred.analysis.study.cell import DONE, SETTINGS
from tokenred.analysis.study.plan import Plan
from tokenred.analysis.study.rows import extra_columns, record, tidy, unused_notes
from tokenred.analysis.study.store import Store
from tokenred.core.errors import UnknownNameError

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

Record = Mapping[str, Any]
_MOST_EXTRA = 4
_OF_COMPARISON = ("difference", "difference_low", "difference_high", "p_value", "unreadable")


class Study(Result):
    """The results of a grid, one for each of its cells; ``print`` shows them, best first.

    Created by `tokenred.analysis.Grid.run`.

    Args:
        plan: plan of the grid.
        store: contains the results.
        level: level of the paired intervals.

    Attributes:
        store: for looking up predictions, or rows of other grids.
        axes: names of the axes.
        against: name of the reference of the cells, or None.
    """

    def __init__(self, plan: Plan, store: Store, level: float = 0.95) -> None:
        self.store, self.level = store, level
        self.axes, self.against = plan.design.axes, plan.design.against
        self._plan = plan

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """One dictionary per cell, in the order of the grid: the rows of `frame`."""
        rows = {row["key"]: row for row in self.store.rows([cell.key for cell in self._plan.cells])}
        found = []
        for cell in self._plan.cells:
            if cell.key in rows:
                row = record(rows[cell.key], cell.axes) | {"strategy": cell.label}
                if cell.reference:
                    row |= self.store.difference(cell.key, cell.reference, self.level)
                found.append(row)
        return found

    @property
    def frame(self) -> pd.DataFrame:
        """A tidy pandas frame, one row per cell, in the order of the grid.

        Cells with the same result (such as M with the graph ``none``) have a row each. With a
        reference, ``difference`` and its interval are in percentage points from it.
        """
        return tidy(self.records, self.axes)

    @cached_property
    def references(self) -> list[dict[str, Any]]:
        """The references of the cells, one dictionary for each setting."""
        axes = {cell.key: cell.axes for cell in self._plan.references}
        return [record(row, axes[row["key"]]) for row in self.store.rows(list(axes))]

    @cached_property
    def _reference_keys(self) -> set[str]:
        return {row["key"] for row in self.references}

    def failed(self) -> list[dict[str, Any]]:
        """The cells that raised."""
        return [row for row in self.records if row["status"] != DONE]

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
        columns: dict[str, Callable[[Record], str]] = {n: partial(_word, name=n) for n in names}
        columns["GMACs\nan image"] = partial(number, name="gmacs", places=4)
        if any(row.get("top1") is not None for row in done):
            columns["top-1\n%"] = partial(number, name="top1", places=2)
        if any("difference" in row for row in done):
            heading = f"points from {self.against}\n[{self.level:.0%} paired interval]"
            columns[heading] = partial(interval, name="difference", signed=True)
        for name in _extra(done, self.axes):
            columns[name.replace("_", " ")] = partial(number, name=name, places=3)
        shown = [*self.references, *done[:most]]
        for at, row in enumerate(shown):
            # A cell may be the reference of others, too.
            if row["key"] in self._reference_keys and row.get(names[0]) != self.against:
                told = f"{_word(row, names[0])} ({self.against})".strip()
                shown[at] = {**row, names[0]: told}
        return table_of(columns, shown, left=len(names), dim=len(self.references))

    def footnotes(self) -> list[str]:
        """The number of cells, which of them failed, and what produced the rows."""
        records, failed = self.records, self.failed()
        results = len({row["key"] for row in records})
        lines = [f"{count(len(records), 'cell')}, {count(results, 'different result')}"]
        done = [row for row in _sorted(records, None) if row["status"] == DONE]
        if first := next(iter(done), None):
            images = f"{first['images']} images of {first['data']}, " if "images" in first else ""
            lines[0] += (
                f"; {images}model {first['model']}, weights {first['weights']}, seed "
                f"{first['seed']}; tokenred {first['tokenred']}, torch {first['torch']}, timm "
                f"{first['timm']}."
            )
            if "top1" in first and set(self.axes).difference(SETTINGS):
                lines.append(f"Best: {first['strategy']}")
        compared = [row for row in records if row["key"] not in self._reference_keys]
        lines += filter(None, [resolution(compared, self.level)])
        lines += unused_notes((c.label, c.strategy.unused) for c in self._plan.cells if c.strategy)
        lines += [f"{row['status']}: {row['strategy']}: {row['error']}" for row in failed[:5]]
        if len(failed) > 5:
            lines.append(f"and {len(failed) - 5} more that failed or were skipped.")
        if self.store.path is not None:
            lines.append(f"Stored in {self.store.path}.")
        return lines


def _word(row: Record, name: str) -> str:
    return "" if row.get(name) is None else str(row[name])


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
    names = [n for n in extra_columns(records, axes) if n not in _OF_COMPARISON]
    numbers = [n for n in names if any(isinstance(row.get(n), int | float) for row in records)]
    return numbers[:_MOST_EXTRA]
