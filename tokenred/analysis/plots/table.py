"""A table of values from several sources, whatever it will be printed as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Block", "Table", "show"]


@dataclass(frozen=True, eq=False)
class Block:
    """The values of one source.

    Attributes:
        origin: "measured" or "published".
        name: model and data, as far as they are known.
        columns: of the block.
        values: a row of numbers for each row of the table, None where there is none.
        ranked: whether more is better.
        half_width: of a typical interval of the values, or None where nobody knows.
    """

    origin: str
    name: str
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    ranked: bool = True
    half_width: float | None = None

    @property
    def title(self) -> str:
        """Origin and name in a line."""
        return f"{self.origin}: {self.name}" if self.name else self.origin

    def is_best(self, row: int, column: int) -> bool:
        """Whether no row of this block is above this one, as printed."""
        if not self.ranked:
            return False
        shown = [show(values[column]) for values in self.values if values[column] is not None]
        own = self.values[row][column]
        return own is not None and show(own) == max(shown, key=float)


@dataclass(frozen=True, eq=False)
class Table:
    """Rows with values from several sources; print it as it is, or as Markdown, LaTeX or a figure.

    Attributes:
        heads: what the names of the rows mean.
        rows: their names.
        column_head: what the columns mean.
        metric: what the values are, with their unit.
        blocks: measured first.
        note: small print.
    """

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    column_head: str
    metric: str
    blocks: tuple[Block, ...]
    note: str

    def markdown(self) -> str:
        """The table in Markdown, best values of each column bold."""
        from tokenred.analysis.plots.table_text import markdown

        return markdown(self)

    def latex(self) -> str:
        """The table in LaTeX, with the rules of booktabs."""
        from tokenred.analysis.plots.table_text import latex

        return latex(self)

    def figure(self, *, title: str | None = None, width: float = 3.5) -> Figure:
        """The table as a figure: a block a source, one below the other in a narrow one."""
        from tokenred.analysis.plots.table_figure import table_figure

        return table_figure(self, title=title, width=width)

    def __str__(self) -> str:
        return self.markdown()


def show(value: float | None) -> str:
    """A value as it is printed, one digit after the point."""
    return "" if value is None else f"{value:.1f}"
