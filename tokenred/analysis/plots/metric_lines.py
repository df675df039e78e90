"""A metric along one axis of a study, with intervals; scorers side by side (Fig. 5 of GTP)."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tokenred.analysis.plots.canvas import (
    BAR_GAP,
    BESIDE,
    add_legend,
    add_note,
    draw_references,
    draw_rows,
    draw_series,
    new_figure,
)
from tokenred.analysis.plots.frames import (
    Fixed,
    choose,
    label_of,
    need,
    no_cells,
    read_frame,
    show_value,
    symbol_of,
)
from tokenred.analysis.plots.looks import Look, looks_of, read_name
from tokenred.analysis.plots.points import (
    BUDGETS,
    gather,
    order,
    reference_values,
    reference_words,
    references_of,
)
from tokenred.core.values import Inches, PartOf

# With more lines than these, bands hide each other; with more than those, the legend has a title.
_BANDS, _PLAIN_LABELS = 2, 4


def metric_lines(
    frame: Any,
    x: str,
    metric: str = "top1",
    *,
    hue: str | None = None,
    fixed: Fixed = None,
    level: PartOf | None = None,
    title: str | None = None,
    width: Inches = 3.5,
    height: Inches | None = None,
) -> Figure:
    """Draw a metric over an axis, one line per value of another axis.

    Axes that are neither drawn nor fixed are averaged over, and the caption says so. The intervals
    are those of `gather`: over seeds, otherwise paired, otherwise binomial. Markers
    stand at their values of ``x``; the bars of several lines stand side by side. Lines with names
    come in the order of their averages, highest first.

    Args:
        frame: the frame of a study or comparison; see `read_frame`.
        x: a column with numbers, or with names (drawn at equal distances).
        metric: a column with numbers.
        hue: the column that distinguishes lines; None for one line.
        fixed: a mapping from columns to the value that each must have.
        level: nominal coverage of the intervals, see `gather`.
        title: title of the figure; None for model and data, "" for none.
        width: in inches.
        height: in inches; None for one that fits. The legend, above the axes, adds to it.

    Raises:
        InputError: for missing columns or values, or rows that cannot be averaged.
        ConfigError: for one column in two roles, or a level out of range.
    """
    frame = read_frame(frame, level)
    points = gather(frame, [x] if hue is None else [x, hue], metric, fixed=fixed, level=level)
    own, names = points.frame, [None]
    if hue:
        means = own.groupby(hue, sort=False)["value"].mean()
        names = means.sort_values(ascending=False).index.tolist()
        names = sorted(names) if all(map(_is_number, names)) else names
    ticks = sorted(own[x].unique().tolist(), key=order)
    numeric = all(map(_is_number, ticks))
    places = {tick: float(tick) if numeric else float(i) for i, tick in enumerate(ticks)}
    gaps = own["low"].isna().any()  # a band would end on both sides of the reference
    bars = len(names) > _BANDS or not numeric or gaps
    titled = len(names) > _PLAIN_LABELS
    with new_figure(width, height, 2.6) as (figure, axes):
        draw_references(axes, reference_values(frame, metric, fixed, costs=True))
        looks = _looks(frame, hue, names)
        dashed = _draw_varied_references(axes, frame, x, metric, hue, fixed, looks, places)
        for i, name in enumerate(names):
            colour, marker = looks[name]
            line = own[own[hue] == name] if hue else own
            line = line.assign(at=line[x].map(places)).sort_values("at")
            known = line["low"].notna().any()
            label = read_name(show_value(name)) if hue else None
            if hue and not titled and _is_number(name):
                label = f"{symbol_of(hue, points.own)}={label}"
            draw_series(
                axes, line["at"], line["value"], colour, low=line["low"] if known else None,
                high=line["high"], marker=marker, label=label,
                aside=BAR_GAP * (i - (len(names) - 1) / 2) if bars else None,
            )  # fmt: skip
        axes.set_xticks(list(places.values()), None if numeric else list(map(show_value, ticks)))
        if numeric:
            axes.xaxis.set_major_formatter("{x:g}")
        title = points.about if title is None else title
        axes.set(xlabel=label_of(x, points.own), ylabel=points.label, title=title)
        axes.margins(x=0.06)
        handles, _ = axes.get_legend_handles_labels()
        if handles := [*handles, *dashed] if hue or dashed else []:
            heading = symbol_of(hue, points.own) if hue and titled else None
            add_legend(figure, handles, "upper", title=heading)
        moved = bool(bars and len(names) > 1 and points.intervals)
        add_note(figure, "; ".join(filter(None, [points.note(), BESIDE * moved])))
    return figure


def _looks(frame: pd.DataFrame, hue: str | None, names: Sequence[Any]) -> dict[Any, Look]:
    """The looks of the lines; a single one has its method's."""
    if hue is None:
        methods = frame[~no_cells(frame)].get("method", pd.Series(dtype=object)).drop_duplicates()
        return {None: looks_of(methods if len(methods) == 1 else ["cells"]).popitem()[1]}
    if not all(map(_is_number, names)):  # in the order of the frame, as in other figures
        there = (show_value(v) if isinstance(v, tuple | list) else v for v in frame[hue])
        names = [value for value in dict.fromkeys(there) if value in names]
    return looks_of(names)


def _draw_varied_references(
    axes: Axes, frame: pd.DataFrame, x: str, metric: str, hue: str | None, fixed: Fixed,
    looks: Mapping[Any, tuple[Any, str]], places: Mapping[Any, float],
) -> list[Line2D]:  # fmt: skip
    """Dashed lines at references that differ along an axis, as at the budgets of their cells.

    Returns:
        What the legend says of them.
    """
    found = references_of(frame, fixed)
    found = found[no_cells(frame)[found.index]]  # the others are drawn in any case
    if not found.size or max(found[n].nunique() for n in ("difference_from", metric)) < 2:
        return []
    along, of_lines = (name in found and found[name].notna().all() for name in (x, hue))
    dashes: Any = {"linestyle": (0, (4, 3)), "linewidth": 0.8, "zorder": 1}
    for name, rows in found.groupby(hue) if of_lines else [(None, found)]:
        colour = looks[name][0] if name in looks else "0.55"
        if along:
            own = rows.assign(at=rows[x].map(places)).groupby("at", as_index=False)[metric].mean()
            axes.plot(own["at"], own[metric], color=colour, **dashes)
        else:
            axes.axhline(rows[metric].mean(), color=colour, **dashes)
    return [Line2D([], [], color="0.4", label=reference_words(found), **dashes)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def scorer_comparison(
    frame: Any,
    x: str | None = None,
    metric: str = "top1",
    *,
    fixed: Fixed = None,
    level: PartOf | None = None,
    title: str | None = None,
    width: Inches = 3.5,
    height: Inches | None = None,
) -> Figure:
    """Compare scorers: one line per scorer over its budgets, the best on average first.

    At a single budget: one row per scorer with its interval, the best on top.

    Args:
        frame: the frame of a study with an axis ``scorer``; see `read_frame`.
        x: the axis of budgets; None for the first of P, r, keep_rate and schedule that varies.
        metric: a column with numbers.
        fixed: a mapping from columns to the value that each must have.
        level: nominal coverage of the intervals, see `gather`.
        title: title of the figure; None for model and data, "" for none.
        width: in inches.
        height: in inches; None for one that fits.

    Raises:
        InputError, ConfigError: as `metric_lines`.
    """
    data = read_frame(frame, level)
    need(data, ["scorer", metric], "a comparison of scorers, as of `ablate --axis scorer=A,B`,")
    if x is None:
        varied = choose(data, fixed).dropna(subset=["scorer"])
        x = next((n for n in BUDGETS if n in varied and varied[n].nunique() > 1), None)
    if x is not None:
        return metric_lines(
            data, x, metric, hue="scorer", fixed=fixed, level=level, title=title, width=width,
            height=height,
        )  # fmt: skip
    points = gather(data, ["scorer"], metric, fixed=fixed, level=level)
    own = points.frame.sort_values("value").reset_index(drop=True)
    ends = [own["value"] - own["low"], own["high"] - own["value"]]
    with new_figure(width, height, 0.9 + 0.2 * len(own)) as (figure, axes):
        draw_references(axes, reference_values(data, metric, fixed, costs=True), across=False)
        names = own["scorer"].tolist()
        looks = _looks(data, "scorer", names)
        draw_rows(axes, list(map(str, names)), own["value"], ends, [looks[n] for n in names])
        axes.set(xlabel=points.label, title=points.about if title is None else title)
        add_note(figure, points.note())
    return figure
