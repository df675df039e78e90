"""A metric along one axis of a study, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokenred.analysis.plots.canvas import add_legend, add_note, draw_dense, draw_series, new_figure
from tokenred.analysis.plots.frames import Fixed, label_of, show_value, symbol_of
from tokenred.analysis.plots.looks import looks_of, read_name
from tokenred.analysis.plots.points import Points, dense_value, gather, order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# With more lines than these, bands hide each other; with more than those, the legend has a title.
_BANDS, _PLAIN_LABELS = 2, 4


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
    """Draw a metric over an axis, one line per value of another axis.

    Axes that are neither drawn nor fixed are averaged over, and the caption says so. The intervals
    are those of `gather`: over seeds, otherwise paired with dense, otherwise binomial.

    Args:
        frame: the frame of a study or comparison; see `read_frame`.
        x: a column with numbers, or with names (drawn at equal distances).
        metric: a column with numbers.
        hue: the column that distinguishes lines; None for one line.
        fixed: a mapping from columns to the value that each must have.
        level: nominal coverage of the intervals.
        title: title of the figure; None for model and data, "" for none.
        width, height: in inches. The legend, above the axes, adds to the height.

    Raises:
        InputError: for missing columns or values, or rows that cannot be averaged.
        ConfigError: for one column in two roles, or a level out of range.
    """
    by = [x] if hue is None else [x, hue]
    points = gather(frame, by, metric, fixed=fixed, level=level)
    names = [None] if hue is None else sorted(points.frame[hue].unique(), key=order)
    dense = dense_value(frame, metric)
    return draw_lines(points, x, metric, hue, names, dense, title, (width, height))


def draw_lines(
    points: Points,
    x: str,
    metric: str,
    hue: str | None,
    names: Sequence[Any],
    dense: float | None,
    title: str | None,
    size: tuple[float, float],
) -> Figure:
    """The figure of `metric_lines` from points; ``names`` are the lines, in order."""
    own = points.frame
    ticks = sorted(own[x].unique(), key=order)
    numeric = all(isinstance(tick, int | float) for tick in map(_plain, ticks))
    places = {tick: float(tick) if numeric else float(i) for i, tick in enumerate(ticks)}
    step = 0.012 * ((max(places.values()) - min(places.values())) or 1.0)
    bars = len(names) > _BANDS or not numeric
    titled = len(names) > _PLAIN_LABELS
    with new_figure(*size) as (figure, axes):
        draw_dense(axes, dense, name="dense")
        for i, (name, (colour, marker)) in enumerate(looks_of(names).items()):
            line = own if name is None else own[own[hue] == name]
            shift = step * (i - (len(names) - 1) / 2) if bars else 0.0
            line = line.assign(at=line[x].map(places) + shift).sort_values("at")
            low, high = (
                line[end] if line["low"].notna().all() else None for end in ("low", "high")
            )
            label = None if name is None else read_name(show_value(name))
            if hue is not None and not (titled or isinstance(_plain(name), str)):
                label = f"{symbol_of(hue, points.own)}={label}"
            draw_series(
                axes, line["at"], line["value"], colour, low=low, high=high, bars=bars,
                marker=marker, label=label,
            )  # fmt: skip
        axes.set_xticks(list(places.values()), [show_value(tick) for tick in ticks])
        title = points.about if title is None else title
        axes.set(xlabel=label_of(x, points.own), ylabel=label_of(metric), title=title)
        axes.margins(x=0.06)
        if hue is not None:
            handles, _ = axes.get_legend_handles_labels()
            heading = symbol_of(hue, points.own) if titled else None
            add_legend(figure, handles, "upper", title=heading)
        add_note(figure, points.note())
    return figure


def _plain(value: Any) -> Any:
    """A number of NumPy as one of Python; a boolean counts as a name."""
    value = value.item() if hasattr(value, "item") else value
    return str(value) if isinstance(value, bool) else value
