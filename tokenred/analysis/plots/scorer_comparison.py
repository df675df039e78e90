"""Scorers side by side (Fig. 5 of the GTP paper)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenred.analysis.plots.canvas import add_note, draw_dense, new_figure, palette
from tokenred.analysis.plots.frames import Fixed, choose, label_of, need, read_frame
from tokenred.analysis.plots.metric_lines import draw_lines
from tokenred.analysis.plots.points import Points, dense_value, gather

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HUE = "scorer"
_BUDGETS = ("P", "r", "keep_rate", "schedule")


def scorer_comparison(
    frame: Any,
    x: str | None = None,
    metric: str = "top1",
    *,
    fixed: Fixed = None,
    level: float = 0.95,
    title: str | None = None,
    width: float = 3.5,
    height: float | None = None,
) -> Figure:
    """Compare scorers: one line per scorer over its budgets, the best on average first.

    At a single budget: one row per scorer with its interval, the best on top.

    Args:
        frame: the frame of a study with an axis ``scorer``; see `read_frame`.
        x: the axis of budgets; None for the first of P, r, keep_rate and schedule that varies.
        metric: a column with numbers.
        fixed: a mapping from columns to the value that each must have.
        level: nominal coverage of the intervals.
        title: title of the figure; None for model and data, "" for none.
        width, height: in inches; None for a height that fits.

    Raises:
        InputError: for missing columns or values, or rows that cannot be averaged.
        ConfigError: for one column in two roles, or a level out of range.
    """
    data = read_frame(frame)
    need(data, [_HUE, metric], "a comparison of scorers")
    if x is None:
        varied = choose(data, fixed).dropna(subset=[_HUE])
        x = next((n for n in _BUDGETS if n in varied and varied[n].nunique() > 1), None)
    dense = dense_value(data, metric)
    points = gather(data, [_HUE] if x is None else [x, _HUE], metric, fixed=fixed, level=level)
    if x is not None:
        means = points.frame.groupby(_HUE)["value"].mean().sort_values(ascending=False)
        size = (width, height or 2.8)
        return draw_lines(points, x, metric, _HUE, list(means.index), dense, title, size)
    with new_figure(width, height or 0.9 + 0.2 * len(points.frame)) as (figure, axes):
        draw_dense(axes, dense, across=False, name="dense")
        _draw_rows(axes, points)
        axes.set(xlabel=label_of(metric), title=points.about if title is None else title)
        add_note(figure, points.note())
    return figure


def _draw_rows(axes: Any, points: Points) -> None:
    own = points.frame.sort_values("value").reset_index(drop=True)
    sure = own["low"].notna().all()
    ends = [own["value"] - own["low"], own["high"] - own["value"]] if sure else None
    axes.errorbar(
        own["value"], own.index, xerr=ends, fmt="o", color=palette(1)[0], elinewidth=1,
        capsize=2, markersize=5, zorder=3,
    )  # fmt: skip
    axes.set_yticks(list(own.index), [str(name) for name in own[_HUE]])
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.08)
    # Room above the rows for the name of the line.
    axes.set_ylim(-0.5, 1.1 * len(own))
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
