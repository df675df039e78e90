"""Tables of a study next to a paper's (Tables 4 and 5 of the GTP paper), printed or drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from tokenred.analysis.plots.canvas import add_note, new_grid
from tokenred.analysis.plots.frames import (
    Fixed,
    axes_of,
    choose,
    need,
    read_frame,
    show_value,
    symbol_of,
)
from tokenred.analysis.plots.points import BUDGETS, gather, order
from tokenred.analysis.plots.published import read_published
from tokenred.core.errors import InputError
from tokenred.core.values import Inches

_LOG_S = "proportional_attention"
_RANKED = ("top1", "top5", "difference", "images_per_second", "speedup", "realised")
_GREEK = str.maketrans({
    "θ": r"$\theta$", "α": r"$\alpha$", "ρ": r"$\rho$", "±": r"$\pm$", "×": r"$\times$",
})  # fmt: skip
# Figures at least this wide (in inches) have their sources side by side.
_WIDE = 5.0
_ROW, _HEAD, _AROUND = 0.17, 0.5, 0.35
# Light enough for black digits.
_SHADES = LinearSegmentedColormap.from_list("light", ["#ffffff", "#9ec9e2"])


@dataclass(frozen=True, eq=False)
class Table:
    """Values from several sources; prints as text, Markdown, LaTeX or a figure.

    Attributes:
        values: a pandas frame. Rows are named by their axes; columns by source ("measured: ViT on
            digits", "published: DeiT-S") and value ("P=8"). NaN if a source has no value.
        metric: name and unit of the values.
        note: the caption.
        ranked: whether more is better.
        half_width: of a typical interval of the measured values; None if unknown.
    """

    values: pd.DataFrame
    metric: str
    note: str
    ranked: bool = True
    half_width: float | None = None

    @property
    def sources(self) -> list[str]:
        """Measured first, then the published ones."""
        return list(dict.fromkeys(self.values.columns.get_level_values(0)))

    @property
    def best(self) -> pd.DataFrame:
        """Which values are the best of their column, as printed."""
        shown = self.values.round(1)
        return shown.eq(shown.max()) & self.ranked

    def markdown(self) -> str:
        """The table in Markdown, best values of each column bold."""
        text = self.values.apply(lambda own: own.map("{:.1f}".format).where(own.notna(), ""))
        text = text.mask(self.best, "**" + text + "**")
        names = list(map(str, self.values.index.names))
        # Markdown has one header row: of several sources, each column names its own.
        one = len(self.sources) == 1
        heads = [column if one else f"{source}, {column}" for source, column in self.values.columns]
        rule = ["---"] * len(names) + ["---:"] * len(heads)
        rows = [[*map(str, row.Index), *row[1:]] for row in text.itertuples()]
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
                 for row in ([*names, *heads], rule, *rows)]  # fmt: skip
        about = [self.metric, *self.sources * one, self.note]
        return "\n".join([*lines, "", ". ".join(filter(None, about)) + "."])

    def latex(self) -> str:
        """The table in LaTeX, with the rules of booktabs."""
        heads = [("", str(name)) for name in self.values.index.names]
        numbers = list(self.values.columns)
        values = self.values.reset_index().set_axis(
            pd.MultiIndex.from_tuples([*heads, *numbers]), axis=1
        )
        bold = np.where(self.best, "textbf:--rwrap", "")
        style = values.style.hide(axis=0).format(escape="latex")
        style.format_index(escape="latex", axis=1)
        style.format("{:.1f}", na_rep="", subset=numbers)
        style.apply(lambda _: bold, axis=None, subset=numbers)
        columns = "l" * len(heads) + "r" * len(numbers)
        made: str = style.to_latex(hrules=True, multicol_align="c", column_format=columns)
        about = f"% {self.metric}. {self.note}".strip(". ")
        return f"{about}\n{made.translate(_GREEK)}".rstrip()

    def figure(self, *, title: str | None = None, width: Inches = 3.5) -> Figure:
        """The table as a figure, one part per source, stacked if the figure is narrow.

        Darker is better within a column; pale if the difference may be chance.

        Args:
            title: above the table; None for none.
            width: in inches; 3.3 to 3.5 is a column. The height fits the rows.
        """
        parts = {source: self.values[source].dropna(how="all") for source in self.sources}
        rows = [len(part) for part in parts.values()]
        heights = [_HEAD + _ROW * count for count in rows]
        across, height = len(parts), max(heights)
        shape: dict[str, Any] = {"columns": across}
        if width < _WIDE:
            across, height = 1, sum(heights)
            shape = {"rows": len(parts), "height_ratios": [count + 1 for count in rows]}
        best = "bold: the best of a column" if self.ranked else ""
        with new_grid(width, None, _AROUND + height, **shape) as (figure, grid):
            for axes, (source, values) in zip(grid.flat, parts.items(), strict=True):
                self._draw(axes, source, values)
            if title:
                figure.suptitle(title)
            add_note(figure, "; ".join(part for part in (self.metric, best, self.note) if part))
        return figure

    def __str__(self) -> str:
        return self.markdown()

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def _draw(self, axes: Axes, source: str, values: pd.DataFrame) -> None:
        low, high = values.min(), values.max()
        sure = 2 * (self.half_width or 0) if source.startswith("measured") else 0
        span = (high - low).clip(lower=sure)
        shade = (values - low) / span.where(span > 0, 1) * self.ranked
        axes.imshow(np.ma.masked_invalid(shade), cmap=_SHADES, vmin=0, vmax=1.15, aspect="auto")
        best = self.best[source].loc[values.index]
        for (i, j), value in np.ndenumerate(values.to_numpy()):
            if value == value:
                weight = "bold" if best.iloc[i, j] else "normal"
                axes.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=7,
                          fontweight=weight)  # fmt: skip
        axes.set_xticks(range(len(values.columns)), list(values.columns))
        words = [_row_words(values.index.names, name) for name in values.index]
        axes.set_yticks(range(len(values)), words)
        axes.xaxis.tick_top()
        origin, _, name = source.partition(": ")
        axes.set_title("\n".join(filter(None, [origin, name])), fontsize=7, loc="left")
        axes.tick_params(length=0, pad=2)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)


def tabulate(
    frame: Any,
    rows: str | Sequence[str],
    columns: str | None = None,
    metric: str = "top1",
    *,
    published: Any = None,
    table: str | int | None = None,
    backbone: str | Sequence[str] | None = None,
    fixed: Fixed = None,
) -> Table:
    """A metric over rows and columns, next to published values of the same rows.

    Rows of both sources are kept; missing values stay empty. The published models are named,
    because they need not be the measured model.

    Args:
        frame: the frame of a study; see `read_frame`.
        rows: the axis, or axes, whose values are the rows.
        columns: the axis whose values are the columns; None for the first of P, r, keep_rate and
            schedule that there is, or else the only other axis.
        metric: a column with numbers.
        published: the path of a CSV, or the result of `read_published`.
        table: only the published points from this table of the paper.
        backbone: only the published points of this model, or of several as a list.
        fixed: a mapping from columns to the value that each must have.

    Raises:
        InputError: for missing columns or values, or rows that cannot be averaged.
        DataError: if a file cannot be read.
    """
    keys = [rows] if isinstance(rows, str) else list(rows)
    data = read_frame(frame)
    columns = columns or _columns_of(data, keys, fixed)
    used = [*keys, columns, metric]
    points = gather(data, [*keys, columns], metric, fixed=fixed)
    measured = points.frame.rename(columns={"value": metric})
    parts = {f"measured: {points.about}" if points.about else "measured": measured}
    if published is not None:
        theirs = read_published(published, table=table, backbone=backbone)
        need(theirs, used, "the published points of this table")
        theirs = theirs.dropna(subset=[columns, metric]).dropna(subset=keys, how="all")
        for name, own in theirs.groupby("backbone", sort=False):
            parts[f"published: {name}"] = own
    head = symbol_of(columns, points.own)
    made = {source: _wide(own, keys, columns, metric, head) for source, own in parts.items()}
    names = dict.fromkeys(name for part in made.values() for name in part.index)
    values = pd.concat(made, axis=1).loc[sorted(names, key=_row_order)]
    values.index.names = ["log s" if n == _LOG_S else symbol_of(n, points.own) for n in keys]
    explained = "log s: proportional attention" if _LOG_S in keys else ""
    note = "; ".join(part for part in (points.note(width=True), explained) if part)
    return Table(values, points.label, note, metric in _RANKED, points.half_width)


def _columns_of(frame: pd.DataFrame, keys: Sequence[str], fixed: Fixed) -> str:
    """The axis of the columns where none is named."""
    need(frame, keys, "this table")
    there = choose(frame, fixed).drop(columns=list(keys))
    axes = [axis for axis in axes_of(there) if there[axis].map(str).nunique() > 1]
    budgets = [name for name in BUDGETS if name in axes] or [n for n in BUDGETS if n in there]
    if not budgets and len(axes) != 1:
        raise InputError(
            "expected columns, the axis whose values are the columns of the table; besides "
            f"{', '.join(keys)}, the frame varies {', '.join(axes) or 'nothing: draw lines'}."
        )
    return (budgets or axes)[0]


def theta_rows(frame: pd.DataFrame) -> list[str]:
    """The axes whose values are the rows of a table of θ."""
    return ["theta", _LOG_S] if _LOG_S in frame else ["theta"]


def _wide(own: pd.DataFrame, keys: list[str], columns: str, metric: str, head: str) -> pd.DataFrame:
    """The values of a source, with the same row names in every source."""
    names = [tuple(_cell(value) for value in key) for key in own[keys].itertuples(index=False)]
    heads = sorted(own[columns].unique(), key=order)
    made = own.assign(row=names).drop_duplicates(["row", columns], keep="last")
    made = made.pivot(index="row", columns=columns, values=metric).astype(float)
    made = made.loc[list(dict.fromkeys(names)), heads]
    made.index = pd.MultiIndex.from_tuples(made.index)
    return made.set_axis([f"{head}={show_value(value)}" for value in heads], axis=1)


def _row_order(name: tuple[str, ...]) -> tuple[Any, ...]:
    """Numbers in ascending order, then names in their original order."""
    try:
        return (0, float(name[0]))
    except ValueError:
        return (1, 0.0)


def _cell(value: Any) -> str:
    """The name of a row, the same for 1 and "1.0"."""
    if str(value) in ("True", "False"):
        return "yes" if str(value) == "True" else "no"
    try:
        return f"{float(value):g}"
    except (TypeError, ValueError):
        return str(value)


def _row_words(heads: Sequence[str], name: tuple[str, ...]) -> str:
    """The name of a row, explained if the name alone is not clear."""
    told = {"yes": "with {}", "no": "no {}"}
    plain = ("{}={}" if value[:1].isdigit() else "{1}" for value in name)
    forms = [told.get(value, form) for value, form in zip(name, plain, strict=True)]
    return ", ".join(map(str.format, forms, heads, name))
