"""A metric over two axes of a study."""

from typing import Any

import seaborn as sns
from matplotlib.figure import Figure

from tokenred.analysis.plots.canvas import add_note, name_cells, new_figure
from tokenred.analysis.plots.frames import Fixed, label_of, show_value
from tokenred.analysis.plots.points import SHARES, gather, order
from tokenred.core.values import Inches, PartOf


def heat_map(
    frame: Any,
    x: str,
    y: str,
    metric: str = "top1",
    *,
    fixed: Fixed = None,
    level: PartOf | None = None,
    title: str | None = None,
    width: Inches = 3.5,
    height: Inches | None = None,
) -> Figure:
    """Draw a metric over two axes, with its value in each cell.

    Other axes are fixed or averaged over; the caption says which. A combination that was not run
    stays white. The caption also gives the width of the intervals: smaller differences between
    cells may be chance, and the colour scale spans at least that much.

    Args:
        frame: the frame of a study; see `read_frame`.
        x, y: two columns, such as ``"alpha"`` and ``"M"``.
        metric: a column with numbers.
        fixed: a mapping from columns to the value that each must have.
        level: nominal coverage of the intervals, see `gather`.
        title: title of the figure; None for model and data, "" for none.
        width: in inches.
        height: in inches; None for one that fits the rows and the names along the axes.

    Raises:
        InputError: for missing columns or values, or rows that cannot be averaged.
        ConfigError: for one column in two roles, a level out of range, or a size that is too small
            for what the figure shows.
    """
    points = gather(frame, [y, x], metric, fixed=fixed, level=level)
    table = points.frame.pivot(index=y, columns=x, values="value")
    down, across = (sorted(points.frame[axis].unique(), key=order) for axis in (y, x))
    table = table.loc[down, across]
    low, high = points.frame["value"].min(), points.frame["value"].max()
    span = max(2 * (points.half_width or 0.0), high - low)
    top = (low + high + span) / 2
    top = min(top, 100.0) if metric in SHARES else top
    with new_figure(width, height, max(2.2, 1.1 + 0.27 * len(table))) as (figure, axes):
        axes.grid(visible=False)
        sns.heatmap(
            # From dark to light, also in greyscale and with any colour blindness.
            table, ax=axes, cmap="cividis", vmin=top - span, vmax=top,
            annot=True, fmt=_format(low, high), annot_kws={"fontsize": 7},
            linewidths=0.8, linecolor="white",
            cbar_kws={"label": points.label, "pad": 0.02},
            xticklabels=False, yticklabels=False,
        )  # fmt: skip
        name_cells(axes, map(show_value, table.columns), map(show_value, table.index))
        title = points.about if title is None else title
        axes.set(xlabel=label_of(x, points.own), ylabel=label_of(y, points.own), title=title)
        add_note(figure, points.note(width=True))
    return figure


def _format(low: float, high: float) -> str:
    """Enough digits to distinguish the cells, and three for the largest value."""
    largest, span, digits = max(abs(low), abs(high)), high - low, 1
    while digits < 4 and (largest * 10**digits < 100 or 0 < span * 10**digits < 10):
        digits += 1
    return f".{digits}f"
