"""The agreement of methods on the kept patches, as a heat map."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from tokenred.analysis.plots.canvas import name_cells, new_figure
from tokenred.analysis.plots.frames import about, need, read_frame
from tokenred.analysis.plots.looks import read_name
from tokenred.core.errors import InputError
from tokenred.core.values import Inches

_LABELS = {
    "iou": "kept by both ÷ by either (%)",
    "survival": "survival, Spearman's ρ",
    "scores": "scores, Spearman's ρ",
}
_MOST_NUMBERS = 14  # in a row of a column's width


def agreement_map(
    frame: Any,
    *,
    statistic: str = "iou",
    layer: int | None = None,
    title: str | None = None,
    width: Inches = 3.5,
    height: Inches | None = None,
) -> Figure:
    """Agreement of methods: every pair in every block, or method against method in one block.

    Args:
        frame: of an `Agreement`; see `read_frame`.
        statistic: ``iou``, ``survival`` or ``scores``.
        layer: the block; None for all, with one row per pair.
        title: title of the figure; None for model and data, "" for none.
        width: in inches.
        height: in inches; by default it fits the rows and the names along the axes.

    Raises:
        InputError: if the frame is of another kind, or lacks the statistic or block.
    """
    frame = read_frame(frame)
    columns = ("a", "b", "layer", "statistic", "mean")
    need(frame, columns, "a map of an agreement (tokenred.analysis.agreement)")
    rows = frame[frame["statistic"] == statistic]
    if rows.empty or statistic not in _LABELS:
        known = ", ".join(dict.fromkeys(frame["statistic"]))
        raise InputError(f"expected a statistic among {known}, got {statistic!r}.")
    if square := layer is not None:
        there = sorted(set(rows["layer"]))
        rows = rows[rows["layer"] == layer]
        if rows.empty:
            raise InputError(f"expected a block among {there}, got {layer!r}.")
    if square:  # the lower triangle, in the order they came in
        names = list(dict.fromkeys([*rows["a"], *rows["b"]]))
        table = rows.pivot(index="b", columns="a", values="mean")
        table = table.reindex(index=names[1:], columns=names[:-1])
    else:
        table = _pairs(rows)
    # Correlations can be negative, shares cannot.
    share = statistic == "iou"
    values = table.to_numpy(dtype=np.float64) * (100 if share else 1)
    reach = 100 if share else max(0.1, float(np.nanmax(np.abs(values))))
    tall = 0.9 + (0.36 if square else 0.22) * len(table)
    with new_figure(width, height, max(1.8, tall)) as (figure, axes):
        axes.grid(visible=False)
        sns.heatmap(
            values, ax=axes, mask=np.isnan(values), linewidths=0.5,
            cmap="viridis" if share else "vlag", vmin=0 if share else -reach, vmax=reach,
            annot=values.shape[1] <= _MOST_NUMBERS, fmt=".0f" if share else ".2f",
            annot_kws={"fontsize": 6 if share or square else 5},
            xticklabels=False, yticklabels=False,
            cbar_kws={"label": _LABELS[statistic]},
        )  # fmt: skip
        name_cells(axes, map(read_name, table.columns), map(read_name, table.index))
        axes.set(xlabel="" if square else "block", ylabel="")
        if title is None:
            title = about(rows) + (f", block {layer}" if square else "")
        if title:
            figure.suptitle(title)
    return figure


def _pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per pair, a column per block."""
    names = rows["a"].map(read_name) + " · " + rows["b"].map(read_name)
    table = rows.assign(pair=names).pivot(index="pair", columns="layer", values="mean")
    table = table.loc[list(dict.fromkeys(names))]
    if (rows["statistic"] == "iou").all() and "chance" in rows:
        table.loc["by chance"] = rows.groupby("layer")["chance"].mean()
    return table
