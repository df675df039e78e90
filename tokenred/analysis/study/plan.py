"""The plan of a grid: its cells in order, each result once, on disk and not in memory."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokenred.analysis.study.cell import FAILED, SKIPPED, Cell
from tokenred.analysis.study.design import Design
from tokenred.analysis.study.facts import Facts
from tokenred.analysis.study.planner import Planner, RefusedError
from tokenred.analysis.study.store import Store
from tokenred.reduced.cost import Cost

__all__ = ["Plan", "Survey"]

_CHUNK = 500


@dataclass
class Survey:
    """How far a grid is: results to be computed, to be noted as left out, and stored already.

    Attributes:
        todo: to be computed.
        leave_out: to be noted.
        stored: finished, failed or left out before.
        narrow: stored under fewer axes than this grid has.
    """

    todo: int = 0
    leave_out: int = 0
    stored: int = 0
    narrow: int = 0


class Plan:
    """All cells of a grid, checked.

    The positions and keys lie in a temporary database, which SQLite keeps on disk; a cell is made
    again from its position when it is needed. So 100,000 cells take no more memory than 100.

    Args:
        design: of the grid.
        facts: about its models and data.
        how: see `Planner`.
        invalid: ``"raise"`` at a cell that its model cannot do, or ``"skip"`` it.

    Raises:
        TokenredError: for a cell that its model cannot do, naming it.
    """

    def __init__(
        self, design: Design, facts: Facts, how: Mapping[str, Any], invalid: str = "raise"
    ) -> None:
        self._design = design
        self._planner = Planner(design, facts, how)
        self._references: list[Cell] = []
        # An empty name is a temporary file that vanishes with the connection.
        # The garbage collector, which closes it, may run in any thread.
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._rows.execute("PRAGMA journal_mode = OFF")
        self._rows.execute(
            "CREATE TABLE cells (position INTEGER PRIMARY KEY, key TEXT, reference TEXT)"
        )
        self._rows.execute(
            "CREATE TABLE results (key TEXT PRIMARY KEY, position INTEGER, why TEXT) WITHOUT ROWID"
        )
        self._fill(invalid)
        # References first: their positions are negative.
        self._rows.execute("CREATE INDEX in_order ON results (position)")
        (self._cells,) = self._rows.execute("SELECT count(*) FROM cells").fetchone()
        (self.results,) = self._rows.execute("SELECT count(*) FROM results").fetchone()

    def __len__(self) -> int:
        """How many cells there are; ``results`` counts the different ones, and the references."""
        return int(self._cells)

    def __del__(self) -> None:
        if hasattr(self, "_rows"):
            self._rows.close()

    def _fill(self, invalid: str) -> None:
        references: dict[Any, str | None] = {}
        rows: list[tuple[int, str, str | None, str | None]] = []
        self._rows.execute("BEGIN")
        # Cells are let go of one by one: thousands alive would keep the garbage collector busy.
        for cell, why in self._look(invalid):
            mark = (cell.setting, id(cell.base))
            if mark not in references:
                references[mark] = self._add_reference(cell)
            rows.append((cell.position, cell.key, references[mark], why))
            if len(rows) == _CHUNK:
                self._add(rows)
                rows = []
        self._add(rows)
        self._rows.execute("COMMIT")

    def _add(self, rows: list[tuple[int, str, str | None, str | None]]) -> None:
        self._rows.executemany(
            "INSERT INTO cells VALUES (?, ?, ?)", [(place, key, ref) for place, key, ref, _ in rows]
        )
        self._rows.executemany(
            "INSERT OR IGNORE INTO results VALUES (?, ?, ?)",
            [(key, place, why) for place, key, _, why in rows],
        )

    def _look(self, invalid: str) -> Iterator[tuple[Cell, str | None]]:
        for position in range(len(self._design.axes)):
            try:
                cell = self._planner.cell(position)
            except RefusedError as refused:
                if invalid == "raise":
                    raise refused.named(f"cell {position}") from refused
                yield refused.cell, refused.reason
            else:
                if cell is not None:
                    yield cell, None

    def _add_reference(self, cell: Cell) -> str | None:
        try:
            reference = self._planner.reference(cell)
        except RefusedError as refused:
            raise refused.named("the reference") from refused
        if reference is None:
            return None
        if reference.key not in {known.key for known in self._references}:
            self._references.append(reference)
            self._rows.execute(
                "INSERT OR IGNORE INTO results VALUES (?, ?, NULL)",
                (reference.key, -len(self._references)),
            )
        return reference.key

    # ---------------------------------------------------------------- reading

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes."""
        return self._design.axes.names

    @property
    def reference_keys(self) -> list[str]:
        """The keys of what the cells are compared with."""
        return [cell.key for cell in self._references]

    def cell(self, position: int) -> Cell:
        """The cell of a position; of a negative one a reference."""
        if position < 0:
            return self._references[-position - 1]
        try:
            cell = self._planner.cell(position)
        except RefusedError as refused:
            return refused.cell
        assert cell is not None
        return cell

    def cells(self) -> Iterator[tuple[int, str, str | None]]:
        """Position, key, and key of the reference, of every cell in order."""
        for page in self._pages("cells", "key, reference"):
            yield from page

    def listed(self) -> Iterator[tuple[int, str, str | None]]:
        """Position, key, and why it is left out where it is, of every cell in order."""
        for page in self._pages("cells JOIN results USING (key)", "key, why", "cells.position"):
            yield from page

    def cost(self, cell: Cell) -> Cost:
        """What an image costs in a cell that its model can do."""
        assert cell.strategy is not None
        return self._planner.checker(cell.setting).cost(cell.strategy)

    def survey(self, store: Store, retry_failed: bool = False) -> Survey:
        """How far the grid is, in a store."""
        found = Survey()
        for page, known in self._stored(store):
            for position, key, why in page:
                status, axes = known.get(key, ("", ""))
                if _is_open(status, why, retry_failed):
                    found.leave_out += bool(why)
                    found.todo += not why
                else:
                    found.stored += 1
                    found.narrow += self._is_narrow(position, axes)
        return found

    def todo(self, store: Store, retry_failed: bool) -> Iterator[tuple[Cell, str | None]]:
        """The cells that a store lacks, and why those are left out that are."""
        for page, known in self._stored(store):
            for position, key, why in page:
                if _is_open(known.get(key, ("", ""))[0], why, retry_failed):
                    yield self.cell(position), why

    def widen(self, store: Store) -> None:
        """Add to stored results the axes that only this grid has."""
        for page, known in self._stored(store):
            changed = []
            for position, key, _ in page:
                if key in known and self._is_narrow(position, known[key][1]):
                    own = json.loads(self.cell(position).axes_json)
                    changed.append((key, json.dumps({**own, **json.loads(known[key][1])})))
            store.set_axes(changed)

    def _is_narrow(self, position: int, axes: str) -> bool:
        return position >= 0 and not json.loads(axes).keys() >= self._design.axes.names_at(position)

    def _stored(self, store: Store) -> Iterator[tuple[list[Any], dict[str, tuple[str, str]]]]:
        for page in self._pages("results", "key, why"):
            yield page, store.status([key for _, key, _ in page])

    def _pages(self, table: str, columns: str, order: str = "position") -> Iterator[list[Any]]:
        """Rows in order, some at a time: position and columns."""
        query = f"SELECT {order}, {columns} FROM {table} WHERE {order} > ? ORDER BY {order} LIMIT ?"
        last = -(2**62)
        while page := self._rows.execute(query, (last, _CHUNK)).fetchall():
            last = page[-1][0]
            yield page


def _is_open(status: str, why: str | None, retry_failed: bool) -> bool:
    """Whether something is to be done: nothing is stored, it failed, or it can be done now."""
    return not status or (status == FAILED and retry_failed) or (status == SKIPPED and not why)
