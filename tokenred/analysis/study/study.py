"""A grid that ran: its frame, its comparisons, its table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from tokenred.analysis.result import Result
from tokenred.analysis.study.cell import DONE
from tokenred.analysis.study.differences import Differences
from tokenred.analysis.study.frame import record, tidy
from tokenred.analysis.study.plan import Plan
from tokenred.analysis.study.store import Store

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table
    from rich.text import Text

__all__ = ["Study"]

_CHUNK = 500


class Study(Result):
    """The results of a grid, one for each of its cells; ``print`` shows them, best first.

    Made by `tokenred.analysis.Grid.run`.

    Args:
        plan: of the grid.
        store: that holds the results.
        against: name of what the cells are compared with, or None.
        level: of the paired intervals.

    Attributes:
        store: to look up predictions, or rows of other grids.
    """

    def __init__(self, plan: Plan, store: Store, against: str | None, level: float = 0.95) -> None:
        self.store = store
        self.against = against
        self.level = level
        self._plan = plan

    @cached_property
    def _differences(self) -> Differences:
        return Differences(self.store, self.level)

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """One dictionary a cell, in the order of the grid: what `frame` holds."""
        return list(self._records())

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes."""
        return self._plan.axes

    @property
    def frame(self) -> pd.DataFrame:
        """A tidy pandas frame, one row a cell, in the order of the grid.

        Cells with the same result (M where the graph is ``none``) have a row each. With a
        reference, ``difference`` and its interval are percentage points from it.
        """
        return tidy(self.records, self.axes)

    @cached_property
    def references(self) -> list[dict[str, Any]]:
        """What the cells are compared with, one dictionary for each setting."""
        return [record(row) for row in self.store.rows(self._plan.reference_keys)]

    def failed(self) -> list[dict[str, Any]]:
        """The cells that raised."""
        return [row for row in self.records if row["status"] != DONE]

    def _records(self) -> Iterator[dict[str, Any]]:
        cells = self._plan.cells()
        while some := list(islice(cells, _CHUNK)):
            rows = {row["key"]: row for row in self.store.rows([key for _, key, _ in some])}
            for position, key, reference in some:
                if key in rows:
                    cell = self._plan.cell(position)
                    found = record(rows[key], json.loads(cell.axes_json))
                    found["strategy"] = cell.label
                    yield found | (self._differences(key, reference) if reference else {})

    def keep_comparisons(self) -> None:
        """Compare all cells with their references, and store that for the next start."""
        if self.against is not None:
            _ = self.records
            self.store.keep_comparisons(self._differences.fresh)
            self._differences.fresh = {}

    # ---------------------------------------------------------------- showing

    def table(self, by: str | None = None, most: int | None = 40) -> Table:
        """The best cells for a terminal.

        Args:
            by: the column to sort by, the highest first; None for ``top1``, or for the fewest
                GMACs where it was not measured.
            most: at most so many rows; None for all.

        Raises:
            UnknownNameError: for a column that is not there.
        """
        from tokenred.analysis.study.table import make_table

        return make_table(self, by, most)

    def footnotes(self) -> list[Text]:
        """How many cells there are, which failed, and what produced the rows."""
        from tokenred.analysis.study.table import footnotes

        return footnotes(self)
