"""Accuracy against cost or speed, one line per method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenred.analysis.plots import frames
from tokenred.analysis.plots.canvas import Colour, draw_dense, draw_series, new_figure, palette
from tokenred.analysis.plots.frames import label_of, need, read_frame
from tokenred.analysis.plots.points import wilson
from tokenred.analysis.plots.published import draw_published, read_published, tradeoff_points
from tokenred.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["tradeoff"]

_DENSE = "dense"
# Axis -> (label, label relative to dense, whether less is better).
_AXES = {
    "gmacs": (label_of("gmacs"), "cost per image (% of dense)", True),
    "images_per_second": (label_of("images_per_second"), label_of("speedup"), False),
}
# With more entries than these, the legend goes beneath the axes and adds to the height.
_MANY, _LINE = 6, 0.15


def tradeoff(
    frame: Any,
    *,
    x: str = "gmacs",
    hue: str = "method",
    published: Any = None,
    relative: bool = False,
    front: bool = False,
    title: str | None = None,
    width: float = 3.5,
    height: float = 2.8,
) -> Figure:
    """Top-1 accuracy against cost or speed: one line per method over its budgets, dense as a star.

    The error bars are the paired intervals of the difference from the dense model if the frame has
    them, so they show the uncertainty of the *loss*; otherwise they are binomial. Horizontal bars
    are those of the speed-up. Points of the same cost are drawn slightly apart.

    Args:
        frame: the frame of a `Comparison` with accuracies, or of a study; see `read_frame`.
        x: ``"gmacs"``, or ``"images_per_second"`` as it was measured.
        hue: the column that distinguishes lines.
        published: points of a paper, drawn hollow: the path of a CSV, or the result of
            `read_published`; a method that is also measured has the same colour.
        relative: draw cost (or speed) and accuracy relative to the dense model, so that points of
            other models fit into the same axes.
        front: draw the Pareto front of the measured points.
        title: title of the figure; None for model and data, "" for none.
        width, height: in inches; 3.5 is a column of most papers. A legend beneath the axes adds to
            the height.

    Raises:
        InputError: if the frame lacks the columns or, with ``relative``, the dense model.
        ConfigError: for another x.
    """
    if x not in _AXES:
        raise ConfigError(f"expected x as one of {', '.join(_AXES)}, got {x!r}.")
    frame = read_frame(frame)
    need(frame, ["method", hue, x, "top1"], "a trade-off")
    frame = frame.dropna(subset=[x, "top1"])
    if frame.empty:
        raise InputError(f"expected finished rows with top1 and {x}, got none; measure both.")
    dense = _dense(frame, relative)
    theirs = None if published is None else tradeoff_points(read_published(published), x)
    ours = _bounds(frame, x, dense)
    if relative and dense is not None:
        ours = _relative(ours, dense, x)
    star = None if dense is None else ours[frame["method"] == _DENSE].iloc[0]
    points = ours[frame["method"] != _DENSE].reset_index(drop=True)
    points["shown"] = points["x"]
    if x == "gmacs":
        points["shown"] = _set_apart(points["x"], ours["x"].max() - ours["x"].min())
    names = list(dict.fromkeys(points[hue]))
    colours = dict(zip(names, palette(len(names)), strict=True))
    entries = len(names) + (star is not None) + front
    if outside := entries > _MANY or theirs is not None:
        columns = max(1, int(width / (1.15 if theirs is None else 1.75)))
        entries += 0 if theirs is None else len(theirs[["backbone", "method"]].drop_duplicates())
        height += _LINE * -(-entries // columns)
    label, relative_label, less = _AXES[x]
    with new_figure(width, height) as (figure, axes):
        draw_dense(axes, None if star is None else star["y"])
        _draw_lines(axes, points, hue, colours)
        if star is not None:
            axes.plot(
                star["x"], star["y"], marker="*", markersize=9, color="black", label=_DENSE,
                markeredgecolor="white", markeredgewidth=0.5, linestyle="none", zorder=4,
            )  # fmt: skip
        if theirs is not None:
            draw_published(axes, theirs, x, colours, relative)
        if front:
            _draw_front(axes, ours, less=less)
        axes.set(
            xlabel=relative_label if relative else label,
            ylabel="top-1 difference from dense (points)" if relative else label_of("top1"),
            title=frames.about(frame) if title is None else title,
        )
        axes.margins(x=0.06)
        shown = axes.get_legend_handles_labels()
        if outside:
            figure.legend(*shown, loc="outside lower center", ncols=columns)
        else:
            axes.legend(*shown, ncols=2, loc="best")
    return figure


def _dense(frame: pd.DataFrame, required: bool) -> pd.Series | None:
    rows = frame[frame["method"] == _DENSE]
    if rows.empty and required:
        raise InputError(
            "expected a dense row for relative axes, got none; compare with the dense model, or "
            "draw absolute axes."
        )
    return None if rows.empty else rows.iloc[0]


def _bounds(frame: pd.DataFrame, x: str, dense: pd.Series | None) -> pd.DataFrame:
    """The rows with ``x`` and ``y`` and their bounds, NaN if unknown."""
    out = frame.assign(x=frame[x], y=frame["top1"], low=float("nan"), high=float("nan"))
    out = out.assign(x_low=float("nan"), x_high=float("nan"))
    if {"difference_low", "difference_high"} <= set(frame) and (
        dense is not None or "difference" in frame
    ):
        zero = frame["top1"] - frame["difference"] if dense is None else dense["top1"]
        out["low"] = (zero + frame["difference_low"]).clip(0, 100)
        out["high"] = (zero + frame["difference_high"]).clip(0, 100)
    elif "images" in frame:
        ends = [wilson(p, n) for p, n in zip(frame["top1"], frame["images"], strict=True)]
        out["low"], out["high"] = zip(*ends, strict=True)
    if x != "gmacs" and {"speedup", "speedup_low", "speedup_high"} <= set(frame):
        rate = frame[x] / frame["speedup"]
        out["x_low"], out["x_high"] = rate * frame["speedup_low"], rate * frame["speedup_high"]
    return out


def _relative(points: pd.DataFrame, dense: pd.Series, x: str) -> pd.DataFrame:
    points = points.copy()
    unit = (100 if x == "gmacs" else 1) / dense[x]
    if x != "gmacs" and "speedup" in points:
        # Measured in pairs, which is more precise than the ratio of two rates.
        unit = points["speedup"] / points[x]
    for name in ("x", "x_low", "x_high"):
        points[name] = points[name] * unit
    for name in ("y", "low", "high"):
        points[name] -= dense["top1"]
    return points


def _draw_lines(axes: Axes, points: pd.DataFrame, hue: str, colours: dict[Any, Colour]) -> None:
    for i, (name, colour) in enumerate(colours.items()):
        own = points[points[hue] == name].sort_values("shown", kind="stable")
        if own["x_low"].notna().any():
            across = [(own["x"] - own["x_low"]).clip(0), (own["x_high"] - own["x"]).clip(0)]
            axes.errorbar(
                own["shown"], own["y"], xerr=across, fmt="none", ecolor=colour, elinewidth=0.8,
                capsize=1.7, capthick=0.8, alpha=0.65, zorder=2,
            )  # fmt: skip
        sure = own["low"].notna().any()
        draw_series(
            axes, own["shown"], own["y"], colour, i, bars=True, markersize=5, label=str(name),
            low=own["low"].clip(upper=own["y"]) if sure else None,
            high=own["high"].clip(lower=own["y"]),
        )  # fmt: skip


def _draw_front(axes: Axes, points: pd.DataFrame, *, less: bool) -> None:
    """Steps along the points that no other point beats in both."""
    ordered = points.sort_values(["x", "y"], ascending=[less, False], kind="stable")
    best = ordered[ordered["y"] > ordered["y"].cummax().shift(fill_value=float("-inf"))]
    best = best.sort_values("x")
    axes.step(
        best["x"], best["y"], where="post" if less else "pre", color="0.8", linewidth=3,
        solid_capstyle="butt", label="Pareto front", zorder=1.5,
    )  # fmt: skip


def _set_apart(places: Any, range_of: float) -> Any:
    """Positions on the axis at which bars of (nearly) the same cost do not overlap.

    A group of points closer than a step is spread around its mean, in order; the others do not
    move.
    """
    step = 0.02 * range_of
    ordered = places.sort_values(kind="stable")
    groups = ordered.groupby((ordered.diff() > step).cumsum())
    return groups.transform(
        lambda own: own.mean() + step * (own.reset_index().index - (len(own) - 1) / 2)
    )
