"""What results have in common: a frame, a table to print, a CSV."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tokenred.analysis.files import check_new, write_atomically
from tokenred.analysis.printed import Printed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Framed", "plain_table"]


@dataclass(frozen=True, eq=False)
class Framed(Printed, ABC):
    """A finished measurement; ``print`` shows its table.

    Attributes:
        frame: tidy, one row a figure.
        level: of the intervals.
        notes: lines beneath the table.
    """

    frame: pd.DataFrame
    level: float
    notes: tuple[str, ...]

    @property
    def about(self) -> str:
        """Model and data, as far as they have names."""
        first = self.frame.iloc[0]
        return " on ".join(str(first[key]) for key in ("model", "data") if first[key])

    @abstractmethod
    def table(self) -> Table:
        """The frame for a terminal."""

    def to_csv(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the frame, at once or not at all.

        Raises:
            OutputExistsError: where the file exists.
        """
        path = check_new(path, overwrite=overwrite)
        return write_atomically(path, self.frame.to_csv(index=False))

    def __rich__(self) -> Group:
        return Group(self.table(), Text(), *(Text(note) for note in self.notes))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.frame)} rows)"


def plain_table(title: str, names: list[str], *, left: int = 1) -> Table:
    """An empty table in the house style.

    Args:
        title: above it.
        names: of the columns.
        left: so many columns of text come first; the others hold numbers.
    """
    table = Table(title=Text(title, style="bold"), box=None, header_style="bold", pad_edge=False)
    for at, name in enumerate(names):
        table.add_column(Text(name), justify="left" if at < left else "right", no_wrap=at < left)
    return table
