"""The figures that a frame supports, drawn and embedded in the page."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from tokenred.analysis.plots.break_even import break_even_chart
from tokenred.analysis.plots.canvas import figure_bytes
from tokenred.analysis.plots.frames import label_of, symbol_of
from tokenred.analysis.plots.heat_map import heat_map
from tokenred.analysis.plots.metric_lines import metric_lines
from tokenred.analysis.plots.scorer_comparison import scorer_comparison
from tokenred.analysis.plots.smoothing_curves import smoothing_curves
from tokenred.analysis.plots.tradeoff import tradeoff
from tokenred.analysis.reports.page import Picture
from tokenred.analysis.reports.source import OVERSMOOTHING, SWEEP, Source
from tokenred.core.errors import TokenredError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["draw", "pictures_of"]

Drawing = tuple[Picture, Callable[[], "Figure"]]
_WIDTH, _HEIGHT = 5.0, 3.4
_MOST_PAIRS, _MOST_NAMES = 6, 10
_MOST_BYTES = 400_000
_BUDGETS = ("P", "r", "keep_rate", "schedule", "budget")
_MODEL = ("model", "data", "weights", "dtype")
_SMOOTHING = ("cosine", "cosine_difference", "high_frequency", "effective_rank")


def pictures_of(source: Source) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    """All figures that can be drawn, and a line for each that cannot."""
    found, left_out = [], []
    for picture, make in _drawings(source):
        try:
            found.append(draw(picture, make))
        except TokenredError as error:
            left_out.append(f"Not drawn: {picture.title}: {error}")
    return tuple(found), tuple(left_out)


def draw(picture: Picture, make: Callable[[], Figure]) -> Picture:
    """Draw and embed a figure, as SVG or PNG, whichever is smaller.

    Raises:
        TokenredError: as the figure's function raises them.
    """
    figure = make()
    kind, content = "svg+xml", figure_bytes(figure, "svg")
    if len(content) > _MOST_BYTES:
        kind, content = "png", figure_bytes(figure)
    data = base64.b64encode(content).decode()
    return picture._replace(uri=f"data:image/{kind};base64,{data}")


def _drawings(source: Source) -> Iterator[Drawing]:
    if source.kind == SWEEP:
        yield _sweep(source.frame)
    elif source.kind == OVERSMOOTHING:
        yield _smoothing(source.frame)
    else:
        for part, name in _by_model(source.frame):
            yield from _tradeoffs(part, source.axes, name)
            yield from _along_axes(part, source.axes, name)


def _by_model(frame: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, str]]:
    """The rows of one model on one data set at a time; others need other axes."""
    by = [n for n in _MODEL if n in frame and frame[n].nunique(dropna=False) > 1]
    if not by:
        yield frame, ""
        return
    for key, rows in frame.groupby(by, sort=False, dropna=False):
        words = [str(v) for n, v in zip(by, key, strict=True) if n != "weights"]
        yield rows, ", ".join(words)


def _tradeoffs(frame: pd.DataFrame, axes: tuple[str, ...], name: str) -> Iterator[Drawing]:

    if "top1" not in frame or "method" not in frame or frame["top1"].notna().sum() < 2:
        return
    hue, rows, note = _lines(frame, axes)
    for x in ("gmacs", "images_per_second"):
        if x not in rows or rows[x].notna().sum() < 2:
            continue
        picture = Picture(
            _of(f"Accuracy against {'GMACs' if x == 'gmacs' else 'measured speed'}", name),
            f"Top-1 accuracy over {label_of(x)}, a line for each {symbol_of(hue)}, with intervals. "
            "The table of cells has the same numbers.",
            f"tokenred.analysis.tradeoff(frame, x={x!r}, hue={hue!r})",
            note,
        )
        yield picture, partial(tradeoff, rows, x=x, hue=hue, width=_WIDTH, height=_HEIGHT)


def _lines(frame: pd.DataFrame, axes: tuple[str, ...]) -> tuple[str, pd.DataFrame, str]:
    """The hue of a trade-off figure, the rows it shows, and a note on them."""
    done = frame.dropna(subset=["top1"])
    others = [n for n in axes if n not in _BUDGETS and _count(done, n) > 1]
    if len(others) == 1 and _count(done, others[0]) <= _MOST_NAMES:
        # The dense model has no value on an axis; it is drawn as a star.
        return others[0], done[done[others[0]].notna() | (done["method"] == "dense")], ""
    if not others:
        return "method", done, ""
    cost = done["gmacs"].round(4) if "gmacs" in done else done.index
    best = done.loc[done.groupby([done["method"], cost])["top1"].idxmax()]
    varied = ", ".join(symbol_of(n) for n in others)
    return "method", best, (
        f"Of several cells with the same cost (which differ in {varied}), only the most accurate "
        "is drawn. It was selected on the same images, so its accuracy is slightly optimistic."
    )  # fmt: skip


def _along_axes(frame: pd.DataFrame, axes: tuple[str, ...], name: str) -> Iterator[Drawing]:

    if "top1" not in frame:
        return
    done = frame.dropna(subset=["top1"])
    varied = [n for n in axes if n not in _MODEL and _count(done, n) > 1]
    for axis in varied:
        by = "top-1 accuracy, with intervals; other axes are averaged over."
        if axis == "scorer":
            yield Picture(
                _of("Scorers", name), f"Scorers side by side: {by}",
                "tokenred.analysis.scorer_comparison(frame)",
            ), partial(scorer_comparison, frame, width=_WIDTH)  # fmt: skip
        else:
            yield Picture(
                _of(f"Along {symbol_of(axis)}", name), f"A line over {label_of(axis)}: {by}",
                f"tokenred.analysis.metric_lines(frame, {axis!r})",
            ), partial(metric_lines, frame, axis, width=_WIDTH, height=_HEIGHT)  # fmt: skip
    for x, y in itertools.islice(itertools.combinations(varied, 2), _MOST_PAIRS):
        yield (
            Picture(
                _of(f"{symbol_of(y)} by {symbol_of(x)}", name),
                f"A heat map of top-1 accuracy over {label_of(x)} and {label_of(y)}, its value in "
                "each cell; other axes are averaged over.",
                f"tokenred.analysis.heat_map(frame, {x!r}, {y!r})",
            ),
            partial(heat_map, frame, x, y, width=_WIDTH),
        )


def _sweep(frame: pd.DataFrame) -> Drawing:
    picture = Picture(
        "Where each method starts to pay off",
        "Measured speed-up over the dense model against batch size, a line for each strategy, "
        "with intervals; the dashed lines are what the GMACs allow.",
        "tokenred.analysis.break_even_chart(frame)",
    )
    return picture, partial(break_even_chart, frame, width=2 * _WIDTH)


def _smoothing(frame: pd.DataFrame) -> Drawing:
    there = set(frame["statistic"])
    wanted = [
        name
        for name in _SMOOTHING
        if name in there or ("difference" in frame and name.removesuffix("_difference") in there)
    ]
    picture = Picture(
        "Similarity of the tokens after each block",
        "Statistics of the image tokens after each block, a curve for each strategy with its "
        "interval, the dense model in black.",
        f"tokenred.analysis.smoothing_curves(frame, statistics={wanted!r})",
    )
    return picture, partial(smoothing_curves, frame, statistics=wanted)


def _count(frame: pd.DataFrame, name: str) -> int:
    return len({repr(value) for value in frame[name].dropna()}) if name in frame else 0


def _of(title: str, name: str) -> str:
    return f"{title} ({name})" if name else title
