"""Oversmoothing curves: a statistic of the tokens, block by block."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tokenred.analysis.plots.canvas import add_legend, draw_series, new_grid
from tokenred.analysis.plots.frames import about, need, read_frame
from tokenred.analysis.plots.looks import looks_of, read_name
from tokenred.core.errors import InputError
from tokenred.core.values import Inches

# Quantity and unit.
_LABELS = {
    "cosine": ("mean cosine similarity", ""),
    "effective_rank": ("effective rank", "directions"),
    "high_frequency": ("energy outside mean", "%"),
    "lost": ("dropped tokens lost", "%"),
}
_FROM_DENSE = "_difference"
_PLAIN, _PAIRED = ("mean", "low", "high"), ("difference", "difference_low", "difference_high")


def smoothing_curves(
    frame: Any,
    *,
    statistics: str | Sequence[str] = "cosine",
    title: str | None = None,
    width: Inches | None = None,
    height: Inches | None = None,
) -> Figure:
    """Similarity of the tokens after each block: one curve per strategy, the dense model in black.

    The bands are the intervals over the images.

    Args:
        frame: of an `Oversmoothing`; see `read_frame`.
        statistics: one of ``cosine``, ``effective_rank``, ``high_frequency`` and ``lost``, each
            also with the suffix ``_difference`` for the paired difference from the dense model; or
            several, in one panel each, two per row.
        title: above the figure; None for model and data, "" for none.
        width, height: in inches; by default one column of most papers for one panel, two for more.

    Raises:
        InputError: if the frame is of another kind, or lacks a statistic.
    """
    frame = read_frame(frame)
    wanted = [statistics] if isinstance(statistics, str) else list(statistics)
    _check(frame, wanted)
    looks = looks_of(frame["strategy"])
    columns = min(2, len(wanted))
    rows = -(-len(wanted) // columns)
    least = 2.8 if rows == 1 else 2.4 * rows
    with new_grid(width or 3.5 * columns, height, least, rows, columns) as (figure, grid):
        for axes, statistic in zip(grid.flat, wanted, strict=False):
            _panel(axes, frame, statistic, looks)
        for axes in grid.flat[len(wanted) :]:
            axes.remove()
        add_legend(figure, grid[0, 0].get_legend_handles_labels()[0])
        if title := about(frame) if title is None else title:
            figure.suptitle(title)
    return figure


def _check(frame: Any, wanted: list[str]) -> None:
    columns = ("strategy", "layer", "statistic", *_PLAIN)
    need(frame, columns, "a figure of oversmoothing (tokenred.analysis.oversmoothing)")
    known = [name for name in _LABELS if name in set(frame["statistic"])]
    if "difference" in frame:
        known += [name + _FROM_DENSE for name in known if name != "lost"]
    absent = [name for name in wanted if name not in known]
    if absent or not wanted:
        raise InputError(
            f"expected statistics among {', '.join(known)}, got {', '.join(absent) or 'none'}."
        )


def _panel(axes: Axes, frame: pd.DataFrame, wanted: str, looks: dict[str, Any]) -> None:
    statistic = wanted.removesuffix(_FROM_DENSE)
    paired = statistic != wanted
    quantity, unit = _LABELS[statistic]
    factor = 100 if unit == "%" else 1
    rows = frame[frame["statistic"] == statistic]
    for name, (colour, marker) in looks.items():
        own = rows[rows["strategy"] == name].sort_values("layer")
        mean, low, high = (factor * own[key] for key in (_PAIRED if paired else _PLAIN))
        dense = name == "dense"
        if dense and paired:
            mean = low = high = 0 * own["mean"]
        look = {"markersize": 6} if dense else {"markersize": 4, "zorder": 2.5}
        draw_series(
            axes, own["layer"], mean, colour, low=low, high=high, marker=marker,
            label=read_name(name), **look,
        )  # fmt: skip
    if paired:
        quantity, unit = f"{quantity}\nΔ vs. dense", "points" if unit == "%" else unit
    axes.set(xlabel="block", ylabel=f"{quantity} ({unit})" if unit else quantity)
    layers = sorted(set(rows["layer"]))
    if len(layers) <= 16:
        axes.set_xticks(layers)
