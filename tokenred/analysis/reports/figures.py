"""The figures that a frame supports, drawn and embedded in the page."""

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from tokenred.analysis.plots.break_even import break_even_chart
from tokenred.analysis.plots.canvas import figure_bytes
from tokenred.analysis.plots.frames import has_own_methods, label_of, symbol_of
from tokenred.analysis.plots.heat_map import heat_map
from tokenred.analysis.plots.metric_lines import metric_lines, scorer_comparison
from tokenred.analysis.plots.smoothing_curves import smoothing_curves
from tokenred.analysis.plots.tradeoff import tradeoff
from tokenred.analysis.reports.page import Picture
from tokenred.analysis.reports.source import OVERSMOOTHING, SWEEP, Source
from tokenred.core.errors import TokenredError

_SIZE = {"width": 5.0}  # and as high as the labels need
_MOST_NAMES = 10
_MOST_BYTES = 400_000
_BUDGETS = ("P", "r", "keep_rate", "schedule", "budget")
_MODEL = ("model", "data", "weights", "dtype")
_SMOOTHING = ("cosine", "cosine_difference", "high_frequency", "effective_rank")


class _Drawing(NamedTuple):
    """A figure to draw: ``draw(frame, **options, **size)``."""

    title: str
    alt: str
    draw: Callable[..., Figure]
    frame: pd.DataFrame
    options: Mapping[str, Any]
    size: Mapping[str, float]
    note: str = ""


def pictures_of(source: Source) -> tuple[list[Picture], list[str]]:
    """All figures that can be drawn, and a line for each that cannot."""
    found, left_out = [], []
    for each in _drawings(source):
        call = "".join(f", {name}={value!r}" for name, value in each.options.items())
        made_by = f"tokenred.analysis.{each.draw.__name__}(frame{call})"
        try:
            uri = embed(each.draw(each.frame, **each.options, **each.size))
        except TokenredError as error:
            left_out.append(f"Not drawn: {each.title}: {error}")
        else:
            found.append(Picture(each.title, each.alt, uri, made_by, each.note))
    return found, left_out


def embed(figure: Figure) -> str:
    """A figure as a ``data:`` URI: SVG, or PNG if that would be heavy."""
    kind, content = "svg+xml", figure_bytes(figure, "svg")
    if len(content) > _MOST_BYTES:
        kind, content = "png", figure_bytes(figure)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _drawings(source: Source) -> Iterator[_Drawing]:
    frame = source.frame
    if source.kind == SWEEP:
        yield _Drawing(
            "Where each method starts to pay off",
            "Measured speed-up over the dense model against batch size, a line for each strategy, "
            "with intervals; the dashed lines are what the GMACs allow.",
            break_even_chart, frame, {}, {"width": 2 * _SIZE["width"]},
        )  # fmt: skip
    elif source.kind == OVERSMOOTHING:
        there = set(frame["statistic"])
        there |= {f"{name}_difference" for name in there if "difference" in frame}
        yield _Drawing(
            "Similarity of the tokens after each block",
            "Statistics of the image tokens after each block, a curve for each strategy with its "
            "interval, the dense model in black.",
            smoothing_curves, frame, {"statistics": [n for n in _SMOOTHING if n in there]}, {},
        )  # fmt: skip
    elif "top1" in frame:
        for part, name in _by_model(frame):
            drawings = [*_tradeoffs(part, source.axes), *_along_axes(part, source.axes)]
            for each in drawings:
                yield each._replace(title=f"{each.title} ({name})") if name else each


def _by_model(frame: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, str]]:
    """The rows of one model on one data set at a time; others need other axes."""
    by = [n for n in _MODEL if n in frame and frame[n].nunique(dropna=False) > 1]
    for key, rows in frame.groupby(by, sort=False, dropna=False) if by else [((), frame)]:
        yield rows, ", ".join(str(v) for n, v in zip(by, key, strict=True) if n != "weights")


def _tradeoffs(frame: pd.DataFrame, axes: tuple[str, ...]) -> Iterator[_Drawing]:
    done = frame.dropna(subset=["top1"])
    if "method" not in frame or len(done) < 2:
        return
    others = [n for n in axes if n not in _BUDGETS and _count(done, n) > 1]
    hue, note = None, ""
    if len(others) == 1 and _count(done, others[0]) <= _MOST_NAMES:
        # The dense model has no value on an axis; it is drawn as a star.
        hue = others[0]
        done = done[done[hue].notna() | (done["method"] == "dense")]
    elif others:
        cost = done["gmacs"].round(4) if "gmacs" in done else done.index
        done = done.loc[done.groupby([done["method"], cost])["top1"].idxmax()]
        varied = ", ".join(symbol_of(name) for name in others)
        hue = "method"
        note = (
            f"Of several cells with the same cost (which differ in {varied}), only the most "
            "accurate is drawn. It was selected on the same images, so its accuracy is slightly "
            "optimistic."
        )
    for x, against in (("gmacs", "GMACs"), ("images_per_second", "measured speed")):
        if x in done and done[x].notna().sum() >= 2:
            yield _Drawing(
                f"Accuracy against {against}",
                f"Top-1 accuracy over {label_of(x)}, a line for each {symbol_of(hue or 'method')}, "
                "with intervals. The table of cells has the same numbers.",
                tradeoff, done, {"x": x} | ({"hue": hue} if hue else {}), _SIZE, note,
            )  # fmt: skip


def _along_axes(frame: pd.DataFrame, axes: tuple[str, ...]) -> Iterator[_Drawing]:
    done, own = frame.dropna(subset=["top1"]), has_own_methods(frame)
    varied = [n for n in axes if n not in _MODEL and _count(done, n) > 1]
    rest = "top-1 accuracy, with intervals; other axes are averaged over."
    for axis in varied:
        if axis == "scorer":
            alt = f"Scorers side by side: {rest}"
            yield _Drawing("Scorers", alt, scorer_comparison, frame, {}, _SIZE)
        else:
            title, alt = (
                f"Along {symbol_of(axis, own)}",
                f"A line over {label_of(axis, own)}: {rest}",
            )
            yield _Drawing(title, alt, metric_lines, frame, {"x": axis}, _SIZE)
    if len(varied) == 2:
        x, y = varied
        yield _Drawing(
            f"{symbol_of(y, own)} by {symbol_of(x, own)}",
            f"A heat map of top-1 accuracy over {label_of(x, own)} and {label_of(y, own)}, its "
            "value in each cell; other axes are averaged over.",
            heat_map, frame, {"x": x, "y": y}, _SIZE,
        )  # fmt: skip


def _count(frame: pd.DataFrame, name: str) -> int:
    return len({repr(value) for value in frame[name].dropna()}) if name in frame else 0
