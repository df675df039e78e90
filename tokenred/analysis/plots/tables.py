"""Tables of a study beside a paper's (Tables 4 and 5 of the GTP paper), to print or to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokenred.analysis.plots.cells import Points, gather, order
from tokenred.analysis.plots.frames import Fixed, label_of, need, read_frame, show_value
from tokenred.analysis.plots.paper import read_published
from tokenred.analysis.plots.table import Block, Table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["graph_table", "tabulate", "theta_rows", "theta_table"]

_LOG_S = "proportional_attention"
_HEADS = {"graph": "graph", "theta": "θ", _LOG_S: "log s"}
_RANKED = ("top1", "top5", "difference", "images_per_second", "speedup", "realised")


def tabulate(
    frame: Any,
    rows: str | Sequence[str],
    columns: str = "P",
    metric: str = "top1",
    *,
    published: Any = None,
    table: str | int | None = None,
    backbone: str | Sequence[str] | None = None,
    fixed: Fixed = None,
) -> Table:
    """A metric over rows and columns, with published values of the same rows beside it.

    Rows of either source are kept; where one has no value, the place stays empty. The published
    models are named: they need not be the model that was measured.

    Args:
        frame: of a study; see `read_frame`.
        rows: the axis, or axes, whose values are the rows.
        columns: the axis whose values are the columns.
        metric: a column with numbers.
        published: the path of a CSV, or what `read_published` made of it.
        table, backbone: choose among published points.
        fixed: columns and the value that each must have.

    Raises:
        InputError: for missing columns or values, or rows that may not be averaged.
        DataError: for a file that cannot be read.
    """
    keys = [rows] if isinstance(rows, str) else list(rows)
    data = read_frame(frame)
    need(data, [*keys, columns, metric], "this table")
    points = gather(data, [*keys, columns], metric, fixed=fixed)
    measured = points.frame.rename(columns={"value": metric})
    sources = [("measured", points.about, measured)]
    if published is not None:
        theirs = read_published(published, table=table, backbone=backbone)
        need(theirs, [*keys, columns, metric], "the published points of this table")
        theirs = theirs.dropna(subset=[columns, metric])
        theirs = theirs[theirs[keys].notna().any(axis=1)]
        sources += [("published", n, own) for n, own in theirs.groupby("backbone", sort=False)]
    names = dict.fromkeys(
        tuple(_cell(value) for value in key)
        for _, _, own in sources
        for key in own[keys].itertuples(index=False, name=None)
    )
    ordered = sorted(names, key=_row_order)
    return Table(
        heads=tuple(_HEADS.get(key, key) for key in keys),
        rows=tuple(ordered),
        column_head=columns,
        metric=label_of(metric),
        blocks=tuple(
            Block(
                origin,
                str(name),
                *_values(own, keys, columns, metric, ordered),
                ranked=metric in _RANKED,
                half_width=points.half_width if origin == "measured" else None,
            )
            for origin, name, own in sources
        ),
        note=_note(points, keys),
    )


def graph_table(
    frame: Any,
    *,
    published: Any = None,
    table: str | int | None = 4,
    backbone: str | Sequence[str] | None = None,
    metric: str = "top1",
    columns: str = "P",
    fixed: Fixed = None,
    title: str | None = None,
    width: float = 3.5,
) -> Figure:
    """Graph types over budgets (Table 4 of the GTP paper), drawn; `tabulate` gives the text.

    Args:
        frame, published, table, backbone, metric, columns, fixed: as in `tabulate`.
        title: above the table; None for none.
        width: in inches; the height fits the rows.

    Raises:
        InputError, DataError: as `tabulate`.
    """
    made = tabulate(
        frame, "graph", columns, metric, published=published, table=table, backbone=backbone,
        fixed=fixed,
    )  # fmt: skip
    return made.figure(title=title, width=width)


def theta_table(
    frame: Any,
    *,
    published: Any = None,
    table: str | int | None = 5,
    backbone: str | Sequence[str] | None = None,
    metric: str = "top1",
    columns: str = "P",
    fixed: Fixed = None,
    title: str | None = None,
    width: float = 3.5,
) -> Figure:
    """Shares θ of attention kept over budgets (Table 5 of the GTP paper), drawn.

    With and without proportional attention, where the frame has that axis.

    Args:
        frame, published, table, backbone, metric, columns, fixed: as in `tabulate`.
        title: above the table; None for none.
        width: in inches; the height fits the rows.

    Raises:
        InputError, DataError: as `tabulate`.
    """
    data = read_frame(frame)
    made = tabulate(
        data, theta_rows(data), columns, metric, published=published, table=table,
        backbone=backbone, fixed=fixed,
    )  # fmt: skip
    return made.figure(title=title, width=width)


def theta_rows(frame: pd.DataFrame) -> list[str]:
    """The axes whose values are the rows of a table of θ."""
    return ["theta", _LOG_S] if _LOG_S in frame else ["theta"]


def _values(
    own: pd.DataFrame, keys: list[str], columns: str, metric: str, names: list[tuple[str, ...]]
) -> tuple[tuple[str, ...], tuple[tuple[float | None, ...], ...]]:
    found: dict[tuple[Any, ...], float] = {}
    for *key, column, value in own[[*keys, columns, metric]].itertuples(index=False, name=None):
        found[(*map(_cell, key), column)] = float(value)
    heads = sorted(own[columns].unique(), key=order)
    rows = tuple(tuple(found.get((*name, head)) for head in heads) for name in names)
    return tuple(show_value(head) for head in heads), rows


def _note(points: Points, keys: list[str]) -> str:
    explained = "log s: proportional attention" if _LOG_S in keys else ""
    return "; ".join(part for part in (points.note_with_width, explained) if part)


def _row_order(name: tuple[str, ...]) -> tuple[Any, ...]:
    """Numbers ascending; names after them, as they came."""
    try:
        return (0, float(name[0]))
    except ValueError:
        return (1, 0.0)


def _cell(value: Any) -> str:
    """The name of a row, the same for 1 and "1.0"."""
    if isinstance(value, bool) or str(value) in ("True", "False"):
        return "yes" if str(value) == "True" else "no"
    try:
        return f"{float(value):g}"
    except (TypeError, ValueError):
        return str(value)
