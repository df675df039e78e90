"""Published points, read from a CSV: what a paper printed, to be drawn beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokenred.analysis.plots.frames import choose, need, read_frame
from tokenred.analysis.plots.style import MARKERS, palette
from tokenred.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["dense_point", "draw_published", "read_published", "tradeoff_points"]

_RENAMED = {"top1_percent": "top1", "top5_percent": "top5", "model": "backbone"}
_SPEED = "images_per_second"


def read_published(
    source: Any,
    *,
    table: str | int | None = None,
    backbone: str | Sequence[str] | None = None,
    method: str | Sequence[str] | None = None,
    finetuned: bool | None = None,
) -> pd.DataFrame:
    """Published points, one row a point.

    The CSV is tidy (columns ``metric`` and ``value``, one row a number; ``top1_percent``, ``gmacs``
    and ``images_per_second_DEVICE`` are known) or wide (``top1``, ``gmacs``,
    ``images_per_second``). Both name the model in ``backbone`` (or ``model``), and may have
    ``table``, ``method``, ``finetuned`` and axes such as ``P``, ``graph``, ``theta``.

    Args:
        source: the path of the CSV, or a frame.
        table, backbone, method, finetuned: keep the points of these; several backbones or methods
            as a list.

    Returns:
        The axes, then ``top1``, ``gmacs``, ``images_per_second`` and ``device``, as far as the
        source has them.

    Raises:
        DataError: for a file that is not there, or is no CSV.
        InputError: for missing columns, or no point that is left.
    """
    frame = read_frame(source).rename(columns=_RENAMED)
    need(frame, ["backbone"], "a CSV of published points")
    if "metric" in frame:
        need(frame, ["value"], "a tidy CSV of published points")
        frame = _wide(frame)
    if table is not None:
        frame = choose(frame, {"table": table})
    if finetuned is not None:
        need(frame, ["finetuned"], "choosing published points")
        # A dense model is neither, and says nothing.
        frame = frame[frame["finetuned"].isna() | (frame["finetuned"] == finetuned)]
    for column, names in (("backbone", backbone), ("method", method)):
        if names is not None:
            several = [names] if isinstance(names, str) else list(names)
            need(frame, [column], "choosing published points")
            known = {str(own).casefold() for own in frame[column]}
            if unknown := [name for name in several if name.casefold() not in known]:
                there = ", ".join(dict.fromkeys(map(str, frame[column])))
                raise InputError(
                    f"no published point has {column}={unknown[0]}; the values are {there}."
                )
            folded = {name.casefold() for name in several}
            frame = frame[[str(own).casefold() in folded for own in frame[column]]]
    return frame.reset_index(drop=True)


def tradeoff_points(published: pd.DataFrame, x: str) -> pd.DataFrame:
    """The points that have an accuracy and a place on the axis, each once.

    Raises:
        InputError: where there are none.
    """
    need(published, ["backbone", "method", "top1", x], "the published points of a trade-off")
    points = published.dropna(subset=["top1", x])
    if points.empty:
        raise InputError(f"no published point has both top1 and {x}; choose another table or axis.")
    return points.drop_duplicates(["backbone", "method", "top1", x]).reset_index(drop=True)


def dense_point(published: pd.DataFrame, backbone: str) -> pd.Series | None:
    """The published unreduced model: the method ``dense``, or a row that removes nothing."""
    own = published[published["backbone"] == backbone]
    dense = own["method"] == "dense"
    if "P" in own:
        dense |= own["P"] == 0
    own = own[dense].dropna(subset=["top1"])
    return None if own.empty else own.iloc[0]


def draw_published(
    axes: Axes, points: pd.DataFrame, x: str, colours: dict[Any, Any], relative: bool
) -> None:
    """Draw the points of `tradeoff_points`, hollow and dotted, a line a table and method.

    Args:
        axes: to draw upon.
        points: published ones.
        x: the column along the axis.
        colours: of the methods that are measured, which the published ones share.
        relative: to the published dense model of the same backbone.

    Raises:
        InputError: where that is not published.
    """
    others = iter(palette(10)[::-1])
    chosen = {str(name).casefold(): colour for name, colour in colours.items()}
    lines = [name for name in ("backbone", "method", "finetuned", "table") if name in points]
    labelled: set[str] = set()
    for key, own in points.groupby(lines, dropna=False, sort=False):
        line = dict(zip(lines, key, strict=True))
        backbone, method = str(line["backbone"]), str(line["method"])
        if relative:
            dense = dense_point(points, backbone)
            if dense is None:
                raise InputError(
                    f"the published points of {backbone} have no dense model, to which they could "
                    "be set in relation; leave relative out, or add the row of P=0."
                )
            unit = (100 if x == "gmacs" else 1) / dense[x]
            own = own.assign(**{x: own[x] * unit, "top1": own["top1"] - dense["top1"]})
        if method not in chosen:
            chosen[method] = next(others, (0.4, 0.4, 0.4))
        own = own.sort_values(x, kind="stable")
        tuned = ", fine-tuned" if line.get("finetuned") is True else ""
        device = (
            f" on {str(own['device'].iloc[0]).upper()}" if x != "gmacs" and "device" in own else ""
        )
        label = f"{method}, {backbone}{device}{tuned} (published)"
        axes.plot(
            own[x], own["top1"], color=chosen[method], linestyle=":", linewidth=1,
            marker=MARKERS[len(labelled) % len(MARKERS)], markersize=3.5, markerfacecolor="white",
            markeredgewidth=0.7, zorder=2.5, label=None if label in labelled else label,
        )  # fmt: skip
        labelled.add(label)


def _device(points: pd.DataFrame, x: str) -> str:
    known = x != "gmacs" and "device" in points
    return f" on {str(points['device'].iloc[0]).upper()}" if known else ""


def _wide(tidy: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    keys = [name for name in tidy.columns if name not in ("metric", "value")]
    records: list[dict[str, Any]] = []
    for key, rows in tidy.groupby(keys, dropna=False, sort=False):
        record = dict(zip(keys, key, strict=True))
        for metric, value in zip(rows["metric"], rows["value"], strict=True):
            metric = _RENAMED.get(metric, metric)
            if str(metric).startswith(_SPEED):
                record["device"] = str(metric).removeprefix(_SPEED).strip("_")
                metric = _SPEED
            record[str(metric)] = value
        records.append(record)
    frame = pd.DataFrame(_spread_speeds(records, keys))
    if "gmacs_group" in frame:
        # Some tables give the cost of a whole row of methods.
        cost = frame["gmacs"] if "gmacs" in frame else float("nan")
        frame["gmacs"] = frame["gmacs_group"].where(pd.isna(cost), cost)
        frame = frame.drop(columns="gmacs_group")
    return frame


def _spread_speeds(records: list[dict[str, Any]], keys: list[str]) -> list[dict[str, Any]]:
    """Give a speed that was printed once to both the fine-tuned and the other point."""
    import pandas as pd

    def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
        pairs = [(a[k], b[k]) for k in keys if k != "finetuned"]
        return all(u == v or (pd.isna(u) and pd.isna(v)) for u, v in pairs)

    shared = [r for r in records if pd.isna(r.get("finetuned")) and "top1" not in r]
    own = [r for r in records if not any(r is s for s in shared)]
    left = []
    for speed in shared:
        takers = [r for r in own if same(r, speed)]
        for taker in takers:
            taker.update({k: v for k, v in speed.items() if k not in keys})
        if not takers:
            left.append(speed)
    return own + left
