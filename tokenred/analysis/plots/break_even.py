"""The break-even chart: measured speed-up over the batch size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tokenred.analysis.plots.canvas import MARKERS, draw_series, new_grid, palette
from tokenred.analysis.plots.frames import need, read_frame
from tokenred.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["break_even_chart", "break_even_points"]

_COLUMNS = (
    "strategy", "batch_size", "speedup", "speedup_low", "speedup_high", "allowed",
)  # fmt: skip
# The columns that distinguish panels, and the format of their values.
_PANEL = {
    "model": "{}",
    "image_size": "{} px",
    "dtype": "{}",
    "compile": "compiled: {}",
    "threads": "threads: {}",
    "device": "{}",
    "processor": "{}",
}
_ALWAYS = ("model", "image_size", "dtype")
_PANEL_HEIGHT, _LEGEND_LINE = 1.9, 0.16
_MAX_TICKS = 7


def break_even_chart(
    source: Any,
    *,
    title: str | None = None,
    width: float = 3.5,
    columns: int | None = None,
) -> Figure:
    """Measured speed-up over the batch size: one line per method, one panel per setting.

    A method pays off where its line is above the solid one at 1. Bands are the 90% intervals; a
    marker is filled where the interval lies above 1, so that the gain is more than noise, and
    hollow elsewhere. A dashed line is the limit set by the arithmetic: dense GMACs ÷ GMACs.

    Args:
        source: a `Sweep`, its CSV or its frame. Failed cells are skipped.
        title: title of the figure; None for the settings that all panels share, "" for none.
        width: in inches; 3.5 is one column of most papers.
        columns: columns of panels; None for as many as fit (two in one column of a paper).

    Raises:
        InputError: if the source lacks the columns, or has no finished cell.
        DataError: if a file cannot be read.
    """
    frame = _read(source)
    by, shared = _panels(frame)
    groups = list(frame.groupby(by, sort=False, dropna=False)) if by else [((), frame)]
    names = list(dict.fromkeys(frame["strategy"]))
    looks = {
        name: (colour, MARKERS[i % len(MARKERS)])
        for i, (name, colour) in enumerate(zip(names, palette(len(names)), strict=True))
    }
    across = columns or min(len(groups), max(1, round(width / 1.75)))
    rows = math.ceil(len(groups) / across)
    entries = math.ceil((len(names) + 3) / max(1, int(width / 1.6)))
    height = rows * (_PANEL_HEIGHT + 0.1 * len(by)) + entries * _LEGEND_LINE + 0.3
    with new_grid(width, height, rows, across, sharey=True) as (figure, grid):
        panels = list(grid.flat)
        for axes, (key, own) in zip(panels, groups, strict=False):
            _draw(axes, own, looks)
            # One line each: on one line they would overlap with the next panel.
            words = [_PANEL[name].format(value) for name, value in zip(by, key, strict=True)]
            axes.set_title("\n".join(words), fontsize=7)
        for axes in panels[len(groups) :]:
            axes.set_visible(False)
        figure.supxlabel("batch size (images)", fontsize=8)
        figure.supylabel("speed-up over dense (×)", fontsize=8)
        heading = ", ".join(shared) if title is None else title
        if heading:
            figure.suptitle(heading)
        _legend(figure, looks, max(1, int(width / 1.6)))
    return figure


def break_even_points(source: Any) -> pd.DataFrame:
    """The batch size from which each method pays off, per setting.

    Args:
        source: as for `break_even_chart`.

    Returns:
        A frame with the setting, the strategy and ``pays_from``: the smallest batch size from which
        on the lower end of the speed-up's interval stays above 1; missing if there is none.

    Raises:
        InputError, DataError: as `break_even_chart`.
    """
    import pandas as pd

    frame = _read(source)
    by = [name for name in _PANEL if name in frame] + ["strategy"]
    found = []
    for key, own in frame.groupby(by, sort=False, dropna=False):
        ordered = own.sort_values("batch_size", ascending=False)
        paying = ordered[(ordered["speedup_low"] > 1).cummin()]
        first = None if paying.empty else int(paying["batch_size"].min())
        found.append((*key, first))
    return pd.DataFrame(found, columns=[*by, "pays_from"]).astype({"pays_from": "Int64"})


def _read(source: Any) -> pd.DataFrame:
    """The finished cells."""
    frame = read_frame(source)
    need(frame, _COLUMNS, "a break-even chart")
    if "status" in frame:
        frame = frame[frame["status"] == "done"]
    frame = frame.dropna(subset=["speedup"])
    if frame.empty:
        raise InputError("expected finished cells to draw, got none; see the column error.")
    # Repeated measurements, such as with another version, count once.
    same = [name for name in (*_PANEL, "strategy", "batch_size") if name in frame]
    frame = frame.drop_duplicates(same, keep="last")
    return frame.sort_values("batch_size", kind="stable")


def _panels(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The columns that distinguish panels, and a text on what all panels share."""
    there = [name for name in _PANEL if name in frame]
    by = [name for name in there if frame[name].nunique(dropna=False) > 1]
    first = frame.iloc[0]
    shared = [_PANEL[n].format(first[n]) for n in there if n in _ALWAYS and n not in by]
    return by, shared


def _draw(axes: Axes, frame: pd.DataFrame, looks: dict[str, Any]) -> None:
    axes.axhline(1, color="0.25", linewidth=0.9, zorder=1)
    for name, own in frame.groupby("strategy", sort=False):
        colour, marker = looks[str(name)]
        draw_series(
            axes, own["batch_size"], own["speedup"], colour, low=own["speedup_low"],
            high=own["speedup_high"], marker="",
        )  # fmt: skip
        dashed: Any = {"linewidth": 0.8, "linestyle": (0, (4, 2)), "zorder": 1.5}
        axes.plot(own["batch_size"], own["allowed"], color=colour, **dashed)
        for pays, points in own.groupby(own["speedup_low"] > 1):
            axes.plot(
                points["batch_size"], points["speedup"], linestyle="none", marker=marker,
                markersize=4.5, color=colour, markerfacecolor=colour if pays else "white",
                markeredgewidth=0.8, zorder=4,
            )  # fmt: skip
    sizes = sorted(set(frame["batch_size"]))
    axes.set_xscale("log", base=2)
    every = math.ceil(len(sizes) / _MAX_TICKS)
    axes.set_xticks(sizes[::every], [f"{size:g}" for size in sizes[::every]])
    axes.minorticks_off()
    axes.margins(x=0.06)


def _legend(figure: Figure, looks: dict[str, Any], columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4.5, linewidth=1.2, label=name)
        for name, (colour, marker) in looks.items()
    ]
    hollow: dict[str, Any] = {"marker": "o", "markersize": 4.5, "markerfacecolor": "white"}
    handles += [
        Line2D([], [], color="0.25", linewidth=0.9, label="break-even"),
        Line2D([], [], color="0.4", linewidth=0.8, linestyle=(0, (4, 2)), label="GMACs allow"),
        Line2D([], [], color="0.4", linestyle="none", label="not significantly above 1", **hollow),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
