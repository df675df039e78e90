"""A finished sweep: its rows, its frame, its table, its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from tokenred.analysis.result import Result
from tokenred.analysis.sweeps.cells import Cell
from tokenred.analysis.sweeps.log import read_results
from tokenred.analysis.sweeps.tables import DONE, footnotes, split_table, sweep_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["DONE", "FAILED", "OUT_OF_MEMORY", "Sweep"]

FAILED, OUT_OF_MEMORY = "failed", "out of memory"


@dataclass(frozen=True, eq=False)
class Sweep(Result):
    """Speed in many settings; ``print`` shows the tables.

    Attributes:
        rows: one a cell that was measured, now or earlier: settings, machine, the figures of
            `tokenred.analysis.Timing`, and a ``status``: done, failed or out of memory.
        todo: cells that a dry run found to do.
        refused: cells that cannot run, and why.
        path: the file of results, or None.
    """

    rows: tuple[dict[str, Any], ...]
    todo: tuple[Cell, ...] = ()
    refused: tuple[tuple[Cell, str], ...] = ()
    path: Path | None = None

    @classmethod
    def read(cls, path: str | Path) -> Sweep:
        """The results in a file; of a cell that was measured again, the last.

        Raises:
            DataError: for a file that is not there, or holds something else.
        """
        last = {row["key"]: row for row in read_results(path)}
        return cls(tuple(last.values()), path=Path(path))

    @property
    def done(self) -> tuple[dict[str, Any], ...]:
        """The rows with figures."""
        return tuple(row for row in self.rows if row["status"] == DONE)

    @property
    def failures(self) -> tuple[dict[str, Any], ...]:
        """The rows without; ``error`` says why."""
        return tuple(row for row in self.rows if row["status"] != DONE)

    def frame(self) -> pd.DataFrame:
        """A pandas frame, one row a cell."""
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    def plot(self, **options: Any) -> Figure:
        """See `tokenred.analysis.break_even_chart`."""
        from tokenred.analysis.plots.break_even import break_even_chart

        return break_even_chart(self, **options)

    def __rich__(self) -> Group:
        parts: list[Any] = [sweep_table(self.rows), Text()] if self.rows else []
        if any("split_attention" in row for row in self.rows):
            parts += [split_table(self.rows), Text()]
        lines = footnotes(self.rows, self.refused) + [f"To do: {cell}" for cell in self.todo]
        return Group(*parts, *(Text(line) for line in lines))
