"""What a result shows of itself: text where it is printed, a table where a notebook's cell ends."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

__all__ = ["Printed"]

_WIDTH = 140
_NOTE = 'style="font-size: smaller; margin: 0.2em 0"'


class Printed:
    """A result that says with ``__rich__`` which tables and lines it consists of."""

    def __rich__(self) -> Group:
        raise NotImplementedError(f"{type(self).__name__} has no __rich__")

    def __str__(self) -> str:
        from rich.console import Console

        # In a notebook rich would show the text besides, as an empty output.
        console = Console(
            width=_WIDTH,
            color_system=None,
            force_terminal=False,
            force_jupyter=False,
            markup=False,
            emoji=False,
        )
        with console.capture() as captured:
            console.print(self)
        return captured.get().rstrip()

    def _repr_html_(self) -> str:
        """The same for a notebook, whose lines are shorter than the tables are wide."""
        from rich.table import Table

        shown = []
        for part in self.__rich__().renderables:
            if isinstance(part, Table):
                shown.append(_html(part))
            elif text := str(part).strip():
                shown.append(f"<p {_NOTE}>{escape(text)}</p>")
        return "\n".join(shown)


def _html(table: Table) -> str:
    """A table of rich as one of HTML; colours are left to the notebook."""
    sides = [f'style="text-align: {column.justify}"' for column in table.columns]
    head = [
        f"<th {side}>{_text(column.header)}</th>"
        for side, column in zip(sides, table.columns, strict=True)
    ]
    rows = [
        "".join(f"<td {side}>{_text(cell)}</td>" for side, cell in zip(sides, cells, strict=True))
        for cells in zip(*(column.cells for column in table.columns), strict=True)
    ]
    caption = f"<caption>{_text(table.title)}</caption>\n" if table.title else ""
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f"<table>\n{caption}<thead><tr>{''.join(head)}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>"
    )


def _text(cell: Any) -> str:
    """A cell without its styles; a line break stays one."""
    return escape(str(cell)).replace("\n", "<br>")
