"""A table as a figure."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tokenred.analysis.plots.canvas import add_note, new_grid
from tokenred.analysis.plots.table import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tokenred.analysis.plots.table import Block, Table

__all__ = ["table_figure"]

# A figure this wide has its blocks side by side.
_WIDE = 5.0
_ROW, _HEAD, _AROUND = 0.17, 0.5, 0.35
# Light enough for black figures.
_COLOURS = ("#ffffff", "#9ec9e2")


def table_figure(table: Table, *, title: str | None = None, width: float = 3.5) -> Figure:
    """See `Table.figure`. Darker is better within a column, and pale where it may be chance."""
    shown = [_without_empty_rows(table, block) for block in table.blocks]
    side_by_side = width >= _WIDE and len(shown) > 1
    rows = [len(names) for names, _ in shown]
    if side_by_side:
        height = _AROUND + _HEAD + _ROW * max(rows)
        shape: dict[str, Any] = {"rows": 1, "columns": len(shown)}
    else:
        height = _AROUND + sum(_HEAD + _ROW * count for count in rows)
        shape = {"rows": len(shown), "columns": 1, "height_ratios": [count + 1 for count in rows]}
    letters = int((width / len(shown) if side_by_side else width) / 0.075)
    best = "bold: the best of a column" if any(block.ranked for _, block in shown) else ""
    with new_grid(width, height, **shape) as (figure, grid):
        for axes, (names, block) in zip(grid.flat, shown, strict=True):
            _draw(axes, table, names, block, letters)
        if title:
            figure.suptitle(title, fontsize=8)
        add_note(figure, "; ".join(part for part in (table.metric, best, table.note) if part))
    return figure


def _without_empty_rows(table: Table, block: Block) -> tuple[list[tuple[str, ...]], Block]:
    full = [i for i, row in enumerate(block.values) if any(v is not None for v in row)]
    values = tuple(block.values[i] for i in full)
    return [table.rows[i] for i in full], replace(block, values=values)


def _draw(
    axes: Axes, table: Table, names: list[tuple[str, ...]], block: Block, letters: int
) -> None:
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    values = np.array([[np.nan if v is None else v for v in row] for row in block.values], float)
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    # Differences that may be chance stay pale.
    span = np.maximum(high - low, 2 * (block.half_width or 0))
    shade = (values - low) / np.where(span > 0, span, 1)
    colours = LinearSegmentedColormap.from_list("light", _COLOURS)
    shade = np.ma.masked_invalid(shade if block.ranked else 0 * shade)
    axes.imshow(shade, cmap=colours, vmin=0, vmax=1.15, aspect="auto")
    for i, row in enumerate(block.values):
        for j, value in enumerate(row):
            weight = "bold" if block.is_best(i, j) else "normal"
            axes.text(j, i, show(value), ha="center", va="center", fontsize=7, fontweight=weight)
    heads = [f"{table.column_head}={column}" for column in block.columns]
    axes.set_xticks(range(len(heads)), heads)
    axes.set_yticks(range(len(names)), [_name(table.heads, name) for name in names])
    axes.xaxis.tick_top()
    title = "\n".join([block.origin, *textwrap.wrap(block.name, letters)])
    axes.set_title(title, fontsize=7, loc="left")
    axes.tick_params(length=0, pad=2)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)


def _name(heads: tuple[str, ...], name: tuple[str, ...]) -> str:
    """A row's name with what it means, where the name does not say it."""
    parts = []
    for head, value in zip(heads, name, strict=True):
        if value in ("yes", "no"):
            parts.append(f"{'with' if value == 'yes' else 'no'} {head}")
        else:
            parts.append(f"{head}={value}" if value[:1].isdigit() else value)
    return ", ".join(parts)
