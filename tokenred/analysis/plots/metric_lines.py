"""A metric along one axis of a study, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokenred.analysis.plots.canvas import add_note, draw_dense, draw_series, new_figure, palette
from tokenred.analysis.plots.frames import (
    Fixed,
    check_columns_differ,
    label_of,
    show_value,
    symbol_of,
)
from tokenred.analysis.plots.points import Points, dense_value, gather, order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_lines", "metric_lines"]

# Bands of more lines than these hide each other; more than those have their legend aside.
_BANDS, _BESIDE = 2, 4


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
    own = points.frame
    if names is None:
        names = [None] if hue is None else sorted(own[hue].unique(), key=order)
    ticks = sorted(own[x].unique(), key=order)
    numeric = all(isinstance(tick, int | float) for tick in map(_plain, ticks))
    places = {tick: float(tick) if numeric else float(i) for i, tick in enumerate(ticks)}
    step = 0.012 * ((max(places.values()) - min(places.values())) or 1.0)
    bars = len(names) > _BANDS or not numeric
    aside = len(names) > _BESIDE
    with new_figure(width, height) as (figure, axes):
        draw_dense(axes, dense, name="dense")
        for i, (name, colour) in enumerate(zip(names, palette(len(names)), strict=True)):
            line = own if name is None else own[own[hue] == name]
            shift = step * (i - (len(names) - 1) / 2) if bars else 0.0
            line = line.assign(at=line[x].map(places) + shift).sort_values("at")
            ends = (line["low"], line["high"]) if line["low"].notna().all() else (None, None)
            draw_series(
                axes, line["at"], line["value"], colour, i, low=ends[0], high=ends[1], bars=bars,
                label=None if name is None else _label(str(hue), name, aside),
            )  # fmt: skip
        axes.set_xticks(list(places.values()), [show_value(tick) for tick in ticks])
        title = points.about if title is None else title
        axes.set(xlabel=label_of(x), ylabel=label_of(metric), title=title)
        axes.margins(x=0.06)
        if hue is not None and aside:
            figure.legend(loc="outside right upper", title=symbol_of(hue))
        elif hue is not None:
            figure.legend(loc="outside upper center", ncols=len(names))
        add_note(figure, points.note())
    return figure


def _label(hue: str, name: Any, aside: bool) -> str:
    """What the legend calls a line: a number says what it is a number of."""
    bare = aside or isinstance(_plain(name), str)
    return show_value(name) if bare else f"{symbol_of(hue)}={show_value(name)}"


def _plain(value: Any) -> Any:
    """A Python number for one of numpy's; a truth value counts as a name."""
    value = value.item() if hasattr(value, "item") else value
    return str(value) if isinstance(value, bool) else value
