"""The break-even chart: measured speed-up over the batch size."""

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tokenred.analysis.plots.canvas import add_legend, draw_series, new_grid
from tokenred.analysis.plots.frames import need, read_frame
from tokenred.analysis.plots.looks import looks_of, read_name
from tokenred.core.errors import InputError
from tokenred.core.values import Inches

# The columns that distinguish panels, and the format of their values.
_PANEL = {
    "model": "{}",
    "image_size": "{} px",
    "dtype": "{}",
    "compile": "compiled: {}",
    "engine": "engine: {}",
    "threads": "threads: {}",
    "device": "{}",
    "processor": "{}",
}
_TITLE = ("model", "image_size", "dtype")
_PANEL_HEIGHT = 1.9
_ALLOWED: dict[str, Any] = {"linewidth": 0.8, "linestyle": (0, (4, 2))}


def break_even_chart(source: Any, *, title: str | None = None, width: Inches = 3.5) -> Figure:
    """Measured speed-up over the batch size: one line per method, one panel per setting.

    A method pays off where its line is above the solid one at 1. Bands are the 90% intervals; a
    marker is filled where the interval lies above 1, so that the gain is more than noise, and
    hollow elsewhere. A dashed line is the limit set by the arithmetic: dense GMACs ÷ GMACs.

    Args:
        source: a `Sweep`, its CSV or its frame. Failed cells are skipped.
        title: title of the figure; None for the settings that all panels share, "" for none.
        width: in inches; 3.5 is one column of most papers, and has two panels side by side.

    Raises:
        InputError: if the source lacks the columns, or has no finished cell.
        DataError: if a file cannot be read.
    """
    frame = _finished(source)
    there = [name for name in _PANEL if name in frame]
    by = [name for name in there if frame[name].nunique(dropna=False) > 1]
    groups = list(frame.groupby(by, sort=False, dropna=False)) if by else [((), frame)]
    looks = looks_of(frame["strategy"])
    columns = min(len(groups), max(1, round(width / 1.75)))
    rows = math.ceil(len(groups) / columns)
    height = rows * (_PANEL_HEIGHT + 0.1 * len(by)) + 0.3
    with new_grid(width, None, height, rows, columns, sharey=True) as (figure, grid):
        for axes, (key, own) in zip(grid.flat, groups, strict=False):
            _draw(axes, own, looks)
            # One line each: on one line they would overlap with the next panel.
            words = [_PANEL[name].format(value) for name, value in zip(by, key, strict=True)]
            axes.set_title("\n".join(words), fontsize=7)
        for axes in grid.flat[len(groups) :]:
            axes.set_visible(False)
        for axes in grid.flat[max(0, len(groups) - columns) : len(groups)]:
            axes.set_xlabel("batch size (images)")
        for axes in grid[:, 0]:
            axes.set_ylabel("speed-up over dense (×)")
        if title is None:
            shared = [name for name in there if name in _TITLE and name not in by]
            title = ", ".join(_PANEL[name].format(frame[name].iloc[0]) for name in shared)
        if title:
            figure.suptitle(title)
        add_legend(figure, _legend(looks))
    return figure


def _finished(source: Any) -> pd.DataFrame:
    frame = read_frame(source)
    columns = ("strategy", "batch_size", "speedup", "speedup_low", "speedup_high", "allowed")
    need(frame, columns, "a break-even chart")
    if "status" in frame:
        frame = frame[frame["status"] == "done"]
    frame = frame.dropna(subset=["speedup"])
    if frame.empty:
        raise InputError("expected finished cells to draw, got none; see the column error.")
    # Repeated measurements, such as with another version, count once.
    same = [name for name in (*_PANEL, "strategy", "batch_size") if name in frame]
    frame = frame.drop_duplicates(same, keep="last")
    return frame.sort_values("batch_size", kind="stable")


def _draw(axes: Axes, frame: pd.DataFrame, looks: dict[str, Any]) -> None:
    axes.axhline(1, color="0.25", linewidth=0.9, zorder=1)
    for name, own in frame.groupby("strategy", sort=False):
        colour, marker = looks[str(name)]
        draw_series(
            axes, own["batch_size"], own["speedup"], colour, low=own["speedup_low"],
            high=own["speedup_high"], marker="",
        )  # fmt: skip
        axes.plot(own["batch_size"], own["allowed"], color=colour, zorder=1.5, **_ALLOWED)
        for pays, points in own.groupby(own["speedup_low"] > 1):
            axes.plot(
                points["batch_size"], points["speedup"], linestyle="none", marker=marker,
                markersize=4.5, color=colour, markerfacecolor=colour if pays else "white",
                markeredgewidth=0.8, zorder=4,
            )  # fmt: skip
    sizes = sorted(set(frame["batch_size"]))
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.margins(x=0.06)


def _legend(looks: dict[str, Any]) -> list[Any]:
    hollow: Any = {"linestyle": "none", "marker": "o", "markersize": 4.5, "markerfacecolor": "w"}
    return [
        *(Line2D([], [], color=colour, marker=marker, markersize=4.5, linewidth=1.2,
                 label=read_name(name)) for name, (colour, marker) in looks.items()),
        Line2D([], [], color="0.25", linewidth=0.9, label="break-even"),
        Line2D([], [], color="0.4", label="limit set by GMACs", **_ALLOWED),
        Line2D([], [], color="0.4", label="not significantly above 1", **hollow),
    ]  # fmt: skip
