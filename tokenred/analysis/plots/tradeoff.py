"""Accuracy against cost or speed, one line per method."""

from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tokenred.analysis.plots.canvas import (
    BAR_GAP,
    BESIDE,
    add_legend,
    add_note,
    draw_bars,
    draw_references,
    draw_rows,
    draw_series,
    new_figure,
)
from tokenred.analysis.plots.frames import (
    Fixed,
    about,
    axes_of,
    has_own_methods,
    label_of,
    need,
    read_frame,
    show_value,
    symbol_of,
)
from tokenred.analysis.plots.looks import Look, looks_of, read_name, variants_of
from tokenred.analysis.plots.points import (
    CUT,
    choose_beside_references,
    paired_words,
    reference_values,
    wilson,
)
from tokenred.analysis.plots.published import dense_point, read_published
from tokenred.analysis.result import ALIKE, span
from tokenred.core.errors import ConfigError, InputError
from tokenred.core.values import Inches

_DENSE = "dense"
_NEAR = 0.02  # of the axis; bars that are closer would cover each other
# Axis -> label relative to dense.
_AXES = {"gmacs": "cost per image (% of dense)", "images_per_second": label_of("speedup")}


def tradeoff(
    frame: Any,
    *,
    x: Literal["gmacs", "images_per_second"] = "gmacs",
    hue: str | None = None,
    published: Any = None,
    relative: bool = False,
    front: bool = False,
    fixed: Fixed = None,
    title: str | None = None,
    width: Inches = 3.5,
    height: Inches | None = None,
) -> Figure:
    """Top-1 accuracy against cost or speed: one line per method over its budgets, dense as a star.

    Strategies of one method that differ in more than their schedules have a line each.

    The error bars are the paired intervals of the difference from the reference if the frame has
    them, such as of the *loss* against the dense model; otherwise they are binomial. Horizontal
    bars are those of the speed-up. The caption says so. Markers stand at their costs; bars that
    would cover each other stand side by side. Dashed lines are the dense model and the reference.

    If all strategies cost about the same, each has a row instead, the best on top, and the caption
    says what they cost. This needs no ``published`` points, ``front`` or ``hue``.

    Args:
        frame: the frame of a `Comparison` with accuracies, or of a study; see `read_frame`.
        x: ``"gmacs"`` or ``"images_per_second"``.
        hue: the column that distinguishes lines; None for methods and their variants.
        published: points of a paper, drawn hollow: the path of a CSV, or the result of
            `read_published`; a method that is also measured has the same colour.
        relative: draw cost (or speed) and accuracy relative to the dense model, so that points of
            other models fit into the same axes.
        front: draw the Pareto front of the measured points.
        fixed: a mapping from columns to the value that each must have.
        title: title of the figure; None for model and data, "" for none.
        width: in inches; 3.5 is a column of most papers.
        height: in inches; None for one that fits. The legend adds to it.

    Raises:
        InputError: if the frame lacks the columns or values or, with ``relative``, the dense
            model.
        ConfigError: for another x.
    """
    if x not in _AXES:
        raise ConfigError(f"expected x as one of {', '.join(_AXES)}, got {x!r}.")
    frame = read_frame(frame)
    need(frame, ["method", *([] if hue is None else [hue]), x, "top1"], "a trade-off")
    frame = choose_beside_references(frame.reset_index(drop=True), fixed)
    frame = frame.dropna(subset=[x, "top1"])
    if frame.empty:
        raise InputError(f"expected finished rows with top1 and {x}, got none; measure both.")
    ours = _placed(frame, x, relative)
    references = reference_values(ours, "y")
    told = [f"{symbol_of(name)}={show_value(value)}" for name, value in (fixed or {}).items()]
    note = "; ".join(filter(None, [_bar_words(ours), *told]))
    ours = ours.assign(line=variants_of(ours) if hue is None else ours[hue])
    dense = ours["method"] == _DENSE
    ours = ours[dense | ours["line"].notna()].assign(aside=_beside(ours["x"]))
    dense = ours["method"] == _DENSE
    points = ours[~dense].reset_index(drop=True)
    theirs = None if published is None else _published(read_published(published), x)
    looks = _looks(points["line"], theirs)
    value = "top-1 Δ vs. dense (points)" if relative else label_of("top1")
    title = about(frame) if title is None else title
    plain = x == "gmacs" and hue is None and theirs is None and not front
    if plain and len(points) > 1 and points["x"].max() <= ALIKE * points["x"].min():
        return _rows(points, ours[dense], references, note, value, title, width, height)
    with new_figure(width, height) as (figure, axes):
        _draw_lines(axes, points, looks)
        draw_references(axes, references, unnamed=_DENSE)  # which has a star
        for _, star in ours[dense].head(1).iterrows():
            _draw_bars(axes, ours[dense].head(1), "black")
            axes.plot(
                star["x"], star["y"], marker="*", markersize=9, color="black", label=_DENSE,
                markeredgecolor="white", markeredgewidth=0.5, linestyle="none", zorder=4,
            )  # fmt: skip
        if theirs is not None:
            _draw_published(axes, theirs, x, looks, relative)
        if front:
            _draw_front(axes, ours, less=x == "gmacs")
        axes.set(xlabel=_AXES[x] if relative else label_of(x), ylabel=value, title=title)
        axes.margins(x=0.06)
        heading = symbol_of(hue, has_own_methods(frame)) if hue else None
        add_legend(figure, axes.get_legend_handles_labels()[0], "upper", title=heading)
        moved = (points["aside"] != 0) & points["y_low"].notna()
        add_note(figure, "; ".join(filter(None, [note, BESIDE * bool(moved.any())])))
    return figure


def _placed(frame: pd.DataFrame, x: str, relative: bool) -> pd.DataFrame:
    """The rows with their positions ``x`` and ``y`` and the bounds of both, NaN if unknown."""
    rows = frame[frame["method"] == _DENSE]
    dense = None if rows.empty else rows.iloc[0]
    columns = set(frame)
    ends = dict.fromkeys(("x_low", "x_high", "y_low", "y_high"), float("nan"))
    out = frame.assign(x=frame[x], y=frame["top1"], **ends)
    if _is_paired(frame):
        zero = frame["top1"] - frame["difference"]
        out["y_low"] = (zero + frame["difference_low"]).clip(0, 100)
        out["y_high"] = (zero + frame["difference_high"]).clip(0, 100)
    elif "images" in columns:
        bounds = [wilson(p, n) for p, n in zip(frame["top1"], frame["images"], strict=True)]
        out["y_low"], out["y_high"] = zip(*bounds, strict=True)
    if x != "gmacs" and {"speedup", "speedup_low", "speedup_high"} <= columns:
        rate = frame[x] / frame["speedup"]
        out["x_low"], out["x_high"] = rate * frame["speedup_low"], rate * frame["speedup_high"]
    if not relative:
        return out
    if dense is None:
        raise InputError(
            "expected a dense row for relative axes, got none; compare with the dense model, or "
            "draw absolute axes."
        )
    unit = (100 if x == "gmacs" else 1) / dense[x]
    if x != "gmacs" and "speedup" in columns:
        # Measured in pairs, which is more precise than the ratio of two rates.
        unit = frame["speedup"] / frame[x]
    for name in ("x", "x_low", "x_high"):
        out[name] = out[name] * unit
    for name in ("y", "y_low", "y_high"):
        out[name] -= dense["top1"]
    return out


def _is_paired(frame: pd.DataFrame) -> bool:
    names = {"difference", "difference_low", "difference_high"}
    return names <= set(frame) and bool(frame["difference_low"].notna().any())


def _paired_words(ours: pd.DataFrame) -> str:
    """What paired bars are, and whether they are cut."""
    zero = ours["top1"] - ours["difference"]
    low, high = zero + ours["difference_low"], zero + ours["difference_high"]
    return paired_words(ours) + CUT * bool((low < 0).any() or (high > 100).any())


def _bar_words(ours: pd.DataFrame) -> str:
    """What the bars are."""
    words = []
    if ours["y_low"].notna().any():
        words.append(_paired_words(ours) if _is_paired(ours) else "95% binomial intervals")
    if ours["x_low"].notna().any():
        words.append("90% intervals of the speed-up")
    return "; ".join(words)


def _rows(
    points: pd.DataFrame, dense: pd.DataFrame, references: dict[str, float], bars: str, value: str,
    title: str, width: float, height: float | None,
) -> Figure:  # fmt: skip
    """Strategies of one cost, a row each."""
    own = points.sort_values("y", kind="stable", ignore_index=True)
    names = _row_names(own)
    # Names tell the cells of a study apart.
    called = "line" if {"base"}.issuperset(_varied(own)) else "method"
    looks = looks_of(points[called], shades=False)
    bounds = [own["y"] - own["y_low"], own["y_high"] - own["y"]]
    ends = (own["gmacs"].min(), own["gmacs"].max())
    note = f"all at {span(*(f'{cost:.3g}' for cost in ends))} GMACs per image"
    with new_figure(width, height, 1.0 + 0.2 * len(names)) as (figure, axes):
        draw_references(axes, references, across=False)
        for _, star in dense.head(1).iterrows():
            note += f", {span(*(f'{cost / star.gmacs:.0%}' for cost in ends))} of dense"
        draw_rows(axes, names, own["y"], bounds, [looks[name] for name in own[called]])
        axes.set(xlabel=value, title=title)
        add_note(figure, "; ".join(filter(None, (note, bars))))
    return figure


def _row_names(own: pd.DataFrame) -> list[str]:
    """Strategies as the rows of a figure: by the axes of a study, or without a common share."""
    written = own["strategy" if "strategy" in own else "line"].map(str)
    parts = [name.rpartition("@") for name in written]
    alike = len({share for *_, share in parts}) == 1 and all(at for _, at, _ in parts)
    names = [read_name(parts[i][0] if alike else name) for i, name in enumerate(written)]
    for i, cell in enumerate(own[_varied(own)].to_dict("records")):
        told = {str(n): v for n, v in cell.items() if v is not None and v == v}
        words = [
            read_name(v) if n == "base" else f"{symbol_of(n)}={show_value(v)}"
            for n, v in told.items()
        ]
        names[i] = ", ".join(words) or names[i]  # a reference that is no cell has its strategy
    return names


def _varied(own: pd.DataFrame) -> list[str]:
    """The axes of a study with several values."""
    axes = axes_of(own) if "strategy" in own else []
    return [axis for axis in axes if own[axis].dropna().map(str).nunique() > 1]


def _draw_lines(axes: Axes, points: pd.DataFrame, looks: dict[Any, Look]) -> None:
    for name, (colour, marker) in looks.items():
        own = points[points["line"] == name].sort_values("x", kind="stable")
        _draw_bars(axes, own, colour)
        draw_series(
            axes,
            own["x"],
            own["y"],
            colour,
            markersize=5,
            marker=marker,
            label=read_name(show_value(name)),
        )


def _beside(x: pd.Series) -> pd.Series:
    """How far right of its marker each vertical bar stands, so that near ones are side by side."""
    places = x.sort_values(kind="stable")
    near = places.groupby((places.diff() > _NEAR * (x.max() - x.min())).cumsum())
    return BAR_GAP * (near.cumcount() - (near.transform("size") - 1) / 2)


def _draw_bars(axes: Axes, points: pd.DataFrame, colour: Any) -> None:
    """The intervals of points, as far as they are known."""
    for aside, own in points.groupby("aside"):
        for side in "xy":
            low, high = own[side] - own[f"{side}_low"], own[f"{side}_high"] - own[side]
            if low.notna().any():
                ends = {f"{side}err": [low.clip(0), high.clip(0)]}
                moved = aside if side == "y" else 0.0
                draw_bars(axes, own["x"], own["y"], colour, aside=moved, **ends)


def _published(points: pd.DataFrame, x: str) -> pd.DataFrame:
    """The published points that can be drawn."""
    need(points, ["backbone", "method", "top1", x], "the published points of a trade-off")
    points = points.dropna(subset=["top1", x])
    points = points.drop_duplicates(["backbone", "method", "top1", x])
    if points.empty:
        raise InputError(f"no published point has both top1 and {x}; choose another table or axis.")
    return points


def _looks(lines: pd.Series, published: pd.DataFrame | None) -> dict[Any, Look]:
    """Those of the measured lines, which differ from those of published methods."""
    theirs = [] if published is None else published["method"].str.casefold()
    looks = looks_of([*lines, *theirs], shades=False)
    return {name: looks[name] for name in lines}


def _draw_published(
    axes: Axes, points: pd.DataFrame, x: str, looks: dict[Any, Look], relative: bool
) -> None:
    """Hollow and dotted, one line per table, backbone and method, in the method's colour.

    A method's backbones have shades and markers, as its variants do.
    """
    pairs = dict.fromkeys(zip(points["method"], points["backbone"], strict=True))
    first = dict(reversed(pairs))
    called = {(m, b): m.casefold() if first[m] == b else f"{m.casefold()}:{b}" for m, b in pairs}
    chosen = {str(name).casefold(): look for name, look in looks.items()}
    chosen = looks_of([*chosen, *called.values()]) | chosen
    lines = [name for name in ("backbone", "method", "finetuned", "table") if name in points]
    labelled: list[str] = []
    for key, own in points.groupby(lines, dropna=False, sort=False):
        line = dict(zip(lines, key, strict=True))
        backbone, method = str(line["backbone"]), str(line["method"])
        if relative:
            dense = dense_point(points, backbone)
            if dense is None:
                raise InputError(
                    f"the published points of {backbone} have no dense model to be relative to; "
                    "omit relative, or add the row of P=0."
                )
            unit = (100 if x == "gmacs" else 1) / dense[x]
            own = own.assign(**{x: own[x] * unit, "top1": own["top1"] - dense["top1"]})
        colour, marker = chosen[called[method, backbone]]
        timed = x != "gmacs" and "device" in own
        device = f" on {str(own['device'].iloc[0]).upper()}" if timed else ""
        tuned = ", fine-tuned" if line.get("finetuned") in (True,) else ""  # or NumPy's
        label = f"{read_name(method)}, {backbone}{device}{tuned} (published)"
        own = own.sort_values(x, kind="stable")
        draw_series(
            axes, own[x], own["top1"], colour, linestyle=":", linewidth=1, markersize=3.5,
            marker=marker, markerfacecolor="white", markeredgecolor=colour, markeredgewidth=0.7,
            zorder=2.5, label=None if label in labelled else label,
        )  # fmt: skip
        labelled += [] if label in labelled else [label]


def _draw_front(axes: Axes, points: pd.DataFrame, *, less: bool) -> None:
    """Steps along the points that no other point beats in both."""
    ordered = points.sort_values(["x", "y"], ascending=[less, False], kind="stable")
    best = ordered[ordered["y"] > ordered["y"].cummax().shift(fill_value=float("-inf"))]
    best = best.sort_values("x")
    axes.step(
        best["x"], best["y"], where="post" if less else "pre", color="0.8", linewidth=3,
        solid_capstyle="butt", label="Pareto front", zorder=1.5,
    )  # fmt: skip
