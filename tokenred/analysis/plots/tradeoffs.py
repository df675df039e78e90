"""Accuracy against cost, one line a method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenred.analysis.plots.style import MARKERS, new_figure, palette
from tokenred.core.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["tradeoff"]

_COLUMNS = ("method", "gmacs", "top1", "difference_low", "difference_high")


def tradeoff(
    frame: Any, *, title: str | None = None, width: float = 3.5, height: float = 2.8
) -> Figure:
    """Top-1 accuracy against GMACs: a line a method through its budgets, dense as a star.

    The error bars are the paired intervals of the difference from the dense model, so they say how
    sure the *loss* is. Points of the same cost are set apart by a hair.

    Args:
        frame: of a `Comparison` that has accuracies.
        title: above the axes; None for model and data, "" for none.
        width, height: in inches; 3.5 is a column of most papers.

    Raises:
        InputError: for a frame without these columns, or without the dense model.
    """
    frame = getattr(frame, "frame", frame)
    missing = [name for name in _COLUMNS if name not in frame]
    if missing or "dense" not in set(frame["method"]):
        raise InputError(
            "expected the frame of a comparison on data, with a dense row; it lacks "
            f"{', '.join(missing) or 'the dense row'}. Call tokenred.analysis.compare with data."
        )
    import seaborn as sns

    dense = frame[frame["method"] == "dense"].iloc[0]
    points = frame[frame["method"] != "dense"].reset_index(drop=True)
    methods = list(dict.fromkeys(points["method"]))
    colours = dict(zip(methods, palette(len(methods)), strict=True))
    markers = {method: MARKERS[i % len(MARKERS)] for i, method in enumerate(methods)}
    span = dense["gmacs"] - frame["gmacs"].min()
    points = points.assign(x=_set_apart(points["gmacs"], span))
    with new_figure(width, height) as (figure, axes):
        axes.axhline(dense["top1"], color="0.55", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        for method, own in points.groupby("method"):
            axes.errorbar(
                own["x"],
                own["top1"],
                yerr=[
                    own["top1"] - (dense["top1"] + own["difference_low"]).clip(0, 100),
                    (dense["top1"] + own["difference_high"]).clip(0, 100) - own["top1"],
                ],
                fmt="none",
                ecolor=colours[method],
                elinewidth=0.8,
                capsize=1.8,
                capthick=0.8,
                alpha=0.7,
                zorder=2,
            )
        sns.lineplot(
            points,
            x="x",
            y="top1",
            hue="method",
            style="method",
            hue_order=methods,
            style_order=methods,
            palette=colours,
            markers=markers,
            dashes=False,
            errorbar=None,
            markersize=5,
            markeredgewidth=0.5,
            linewidth=1.2,
            zorder=3,
            ax=axes,
        )
        axes.plot(
            dense["gmacs"],
            dense["top1"],
            marker="*",
            markersize=9,
            color="black",
            markeredgecolor="white",
            markeredgewidth=0.5,
            linestyle="none",
            label="dense",
            zorder=4,
        )
        if title is None:
            title = " on ".join(str(dense[key]) for key in ("model", "data") if dense.get(key))
        axes.set(xlabel="cost of an image (GMACs)", ylabel="top-1 accuracy (%)", title=title)
        axes.margins(x=0.06)
        axes.legend(title=None, frameon=False, ncols=2, loc="best")
        sns.despine(ax=axes)
    return figure


def _set_apart(gmacs: Any, range_of: float) -> Any:
    """Places on the axis at which bars of (nearly) the same cost do not hide each other.

    A group of points that lie closer than a step is spread about its mean, in order; the others
    stay where they are.
    """
    step = 0.02 * range_of
    ordered = gmacs.sort_values(kind="stable")
    groups = ordered.groupby((ordered.diff() > step).cumsum())
    return groups.transform(
        lambda own: own.mean() + step * (own.reset_index().index - (len(own) - 1) / 2)
    )
