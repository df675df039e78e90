"""A metric along one axis of a study, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokenred.analysis.plots.canvas import add_note
from tokenred.analysis.plots.cells import Points, dense_value, gather, order
from tokenred.analysis.plots.frames import (
    Fixed,
    check_columns_differ,
    label_of,
    show_value,
    symbol_of,
)
from tokenred.analysis.plots.style import MARKERS, new_figure, palette

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_lines", "metric_lines"]

# Bands of more lines than these hide each other.
_BANDS = 2


def metric_lines(
    frame: Any,
    x: str,
    metric: str = "top1",
    *,
    hue: str | None = None,
    fixed: Fixed = None,
    level: float = 0.95,
    title: str | None = None,
    width: float = 3.5,
    height: float = 2.6,
) -> Figure:
    """A metric over an axis, one line a value of another axis.

    Axes that are neither drawn nor fixed are averaged over, and the small print says so. The
    intervals are those of `gather`: over seeds, else paired with dense, else binomial.

    Args:
        frame: of a study or comparison; see `read_frame`.
        x: a column with numbers, or names, which are set side by side.
        metric: a column with numbers.
        hue: the column that tells lines apart; None for one line.
        fixed: columns and the value that each must have.
        level: nominal coverage of the intervals.
        title: above the axes; None for model and data, "" for none.
        width, height: in inches. The legend is above the axes, or beside them where there are
            many lines.

    Raises:
        InputError: for missing columns or values, or rows that may not be averaged.
        ConfigError: for one column in two roles, or a level out of range.
    """
    check_columns_differ(x=x, hue=hue, metric=metric)
    by = [x] if hue is None else [x, hue]
    points = gather(frame, by, metric, fixed=fixed, level=level)
    return draw_lines(
        points, x, metric, hue=hue, dense=dense_value(frame, metric), title=title,
        width=width, height=height,
    )  # fmt: skip


def draw_lines(
    points: Points,
    x: str,
    metric: str,
    *,
    hue: str | None,
    names: Sequence[Any] | None = None,
    dense: float | None,
    title: str | None,
    width: float,
    height: float,
) -> Figure:
    """The figure of `metric_lines` from points; ``names`` are the lines, in order."""
    import seaborn as sns

    own = points.frame
    if names is None:
        names = [None] if hue is None else sorted(own[hue].unique(), key=order)
    ticks = sorted(own[x].unique(), key=order)
    numeric = all(isinstance(tick, int | float) for tick in map(_plain, ticks))
    places = {tick: float(tick) if numeric else float(i) for i, tick in enumerate(ticks)}
    step = 0.012 * ((max(places.values()) - min(places.values())) or 1.0)
    aside = len(names) > 4
    with new_figure(width, height) as (figure, axes):
        if dense is not None:
            axes.axhline(dense, color="0.55", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
            axes.annotate(
                "dense", (1, dense), xycoords=("axes fraction", "data"), xytext=(-1, 1.5),
                textcoords="offset points", ha="right", va="bottom", fontsize=6, color="0.4",
            )  # fmt: skip
        for i, (name, colour) in enumerate(zip(names, palette(len(names)), strict=True)):
            line = own if name is None else own[own[hue] == name]
            at = line[x].map(places)
            bars = len(names) > _BANDS or not numeric
            shift = step * (i - (len(names) - 1) / 2) if bars else 0.0
            label = None if name is None else _label(str(hue), name, aside)
            _draw_line(axes, line.assign(at=at + shift).sort_values("at"), i, colour, label, bars)
        axes.set_xticks(list(places.values()), [show_value(tick) for tick in ticks])
        if title is None:
            title = points.about
        axes.set(xlabel=label_of(x), ylabel=label_of(metric), title=title)
        axes.margins(x=0.06)
        if hue is not None and aside:
            figure.legend(
                loc="outside right upper", frameon=False, title=symbol_of(hue), title_fontsize=7
            )
        elif hue is not None:
            figure.legend(loc="outside upper center", ncols=len(names), frameon=False)
        add_note(figure, points.note)
        sns.despine(ax=axes)
    return figure


def _draw_line(
    axes: Axes, line: pd.DataFrame, i: int, colour: Any, label: str | None, bars: bool
) -> None:
    sure = line["low"].notna().all()
    if sure and bars:
        ends = [line["value"] - line["low"], line["high"] - line["value"]]
        axes.errorbar(
            line["at"], line["value"], yerr=ends, fmt="none", ecolor=colour, elinewidth=0.8,
            capsize=1.6, capthick=0.8, alpha=0.6, zorder=2,
        )  # fmt: skip
    elif sure:
        axes.fill_between(
            line["at"], line["low"], line["high"], color=colour, alpha=0.15, linewidth=0, zorder=2
        )
    axes.plot(
        line["at"], line["value"], color=colour, marker=MARKERS[i % len(MARKERS)], markersize=4.5,
        markeredgecolor="white", markeredgewidth=0.5, linewidth=1.2, label=label, zorder=3,
    )  # fmt: skip


def _label(hue: str, name: Any, aside: bool) -> str:
    """What the legend calls a line: a number says what it is a number of."""
    bare = aside or isinstance(_plain(name), str)
    return show_value(name) if bare else f"{symbol_of(hue)}={show_value(name)}"


def _plain(value: Any) -> Any:
    """A Python number for one of numpy's; a truth value counts as a name."""
    value = value.item() if hasattr(value, "item") else value
    return str(value) if isinstance(value, bool) else value
