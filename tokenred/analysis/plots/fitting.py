"""Labels of any length: broken or turned until none covers another; the figure grows by them."""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import inf
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, YAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator

from tokenred.analysis.terminal_table import fold, longest_piece
from tokenred.core.errors import ConfigError

_NAMES, _WORDS = 0.4, 0.55  # of the width for the names of rows; more only for whole words
_TEXTS = 0.94  # of the width for captions: glyphs differ a little with the resolution
_GAP = 0.03  # inches between labels
_UPRIGHT = 0.9  # inches of an upright label, if more lines have room beside each other
_LEAST, _AMPLE = 0.3, 4.0  # inches: the lowest axes, and a height to measure labels in
_SMALLEST = 5.0  # points of a number in a cell


def fit_labels(
    figure: Figure,
    columns: int,
    height: float | None,
    placed: Callable[[Figure], None] | None = None,
) -> None:
    """Make room for all labels of a finished figure.

    Names along an axis are broken into lines or stand upright, numbers that would cover each other
    are left out, titles are broken.

    Args:
        figure: with a grid of axes.
        columns: of the grid.
        height: what the user asked for, in inches; None if the figure may grow.
        placed: called where everything has its place.

    Raises:
        ConfigError: if the width is too small for the labels, or the height that was asked for.
    """
    # A layout depends on the one before in the last bits, but the same figure gives the same bytes.
    before = {axes: axes.get_position(original=True).frozen() for axes in figure.axes}
    _fit(figure, columns, height)
    if placed is not None:
        _lay_out(figure)
        placed(figure)
    for axes, place in before.items():
        axes.set_position(place)
        axes.set_in_layout(True)


def _fit(figure: Figure, columns: int, height: float | None) -> None:
    (wide, high), inch = figure.bbox.size, figure.dpi
    drawn = [axes for axes in figure.axes if axes.get_visible() and axes.axison]
    rows = max(map(_rows_of, drawn), default=1)
    for text in figure.texts:
        _break(text, _TEXTS * wide)
    if not drawn:
        return
    named = {axes: names for axes in drawn if (names := _names(axes.xaxis))}
    down = {axes: names for axes in drawn if (names := _names(axes.yaxis))}
    for axis, names in [(a.xaxis, n) for a, n in named.items()] + [
        (a.yaxis, n) for a, n in down.items()
    ]:
        axis.set_ticklabels(["x" * bool(name) for name in names])
    spare = 0.0 if height is None else _AMPLE * inch
    figure.set_figheight((high + spare) / inch)
    _lay_out(figure)
    least = dict.fromkeys(drawn, _LEAST * inch)
    for axes in drawn:
        middle = (axes.bbox.y0 + axes.bbox.y1) / 2
        lone = columns == rows == 1
        room = 2 * min(middle, high + spare - middle) if lone else axes.bbox.height
        _break(axes.yaxis.label, max(least[axes], room - spare / rows))
        if height is None:
            least[axes] = axes.bbox.height
    for axes, names in down.items():
        label = axes.yaxis.get_ticklabels()[0]
        words = max(_width(fold(name, longest_piece(name)), label) for name in names)
        room = max(_NAMES * wide, min(_WORDS * wide, words + 1)) / columns
        axes.yaxis.set_ticklabels([_broken(name, label, room) for name in names])
    figure.set_figheight(high / inch + _AMPLE)
    unplaced = set(named)
    for place in (_keep, _fold, _fold_at_equals, _fold_at_equals, _turn, _turn, _thin):
        _lay_out(figure)
        crowded = [axes for axes in drawn if axes in unplaced or _covered(axes) > 0]
        if not crowded:
            break
        unplaced -= {axes for axes in crowded if place(axes, named.get(axes, []))}
    for axes in drawn:
        _fit_cells(axes)
        middle = (axes.bbox.x0 + axes.bbox.x1) / 2
        room = axes.bbox.width if columns > 1 else 2 * min(middle, wide - middle)
        for text in (axes.xaxis.label, *_titles(axes)):
            _break(text, room)
    _lay_out(figure)
    if (covered := max(map(_covered, drawn), default=0.0)) > 0:
        raise _too_small("width", wide / inch, covered / inch)
    for _ in range(4):
        lack = max(
            (max(least[axes], _rows_need(axes)) - axes.bbox.height for axes in drawn), default=0.0
        )
        needed = figure.bbox.height + rows * lack
        if height is not None:
            if needed > high + 1:
                raise _too_small("height", height, (needed - high) / inch)
            needed = high
        figure.set_figheight(needed / inch)
        if height is not None or abs(lack) < 1:
            break
        _lay_out(figure)


def _too_small(side: str, given: float, lack: float) -> ConfigError:
    return ConfigError(
        f"expected a {side} of at least {given + lack + 0.05:.1f} inches for these labels, got "
        f"{given:g}."
    )


def _lay_out(figure: Figure) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "constrained_layout not applied")
        try:
            engine = figure.get_layout_engine()
            assert engine is not None
            engine.execute(figure)
        except UserWarning:
            wide, high = figure.get_size_inches()
            raise ConfigError(
                f"expected more than {wide:g} × {high:g} inches: the labels leave no room for the "
                "axes."
            ) from None


def _rows_of(axes: Axes) -> int:
    spec = axes.get_subplotspec()
    return 1 if spec is None else spec.get_geometry()[0]


def _names(axis: Axis) -> list[str]:
    """The labels of an axis, if they were given as text: numbers have formats."""
    given = isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter)
    return [label.get_text() for label in axis.get_ticklabels()] if given else []


def _titles(axes: Axes) -> Iterator[Text]:
    return (t for t in axes.get_children() if isinstance(t, Text) and t not in axes.texts)


def _width(text: str, like: Text) -> float:
    """The pixels that a text takes in the font of another."""
    canvas = like.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer: Any = canvas.get_renderer()  # type: ignore[no-untyped-call]
    measure, font = renderer.get_text_width_height_descent, like.get_fontproperties()
    return max(float(measure(line, font, False)[0]) for line in text.split("\n"))


def _broken(text: str, like: Text, room: float, *, whole: bool = False) -> str:
    """A text in lines that take no more than some pixels; empty if words cannot stay ``whole``."""
    lines = []
    for line in text.split("\n"):
        least = longest_piece(line) if whole else 1
        tries = (fold(line, letters) for letters in range(max(len(line), 1), least - 1, -1))
        made = next((made for made in tries if _width(made, like) <= room), None)
        if made is None and whole:
            return ""
        lines.append(line if made is None else made)
    return "\n".join(lines)


def _break(text: Text, room: float) -> None:
    if text.get_text():
        text.set_text(_broken(text.get_text(), text, room))


def _labels(axis: Axis) -> list[Text]:
    """The tick labels that are seen."""
    low, high = sorted(axis.get_view_interval())
    at = int(isinstance(axis, YAxis))
    near = 1e-9 * (high - low)
    return [
        label
        for label in axis.get_ticklabels()
        if label.get_visible()
        and label.get_text()
        and low - near <= label.get_position()[at] <= high + near
    ]


def _covered(axes: Axes) -> float:
    """How much wider axes must be for labels not to cover each other, in pixels."""
    boxes = sorted((t.get_window_extent() for t in _labels(axes.xaxis)), key=lambda box: box.x0)
    over = [a.x1 + _GAP * axes.figure.dpi - b.x0 for a, b in pairwise(boxes)]
    return float(max(0.0, *over, 0.0)) * len(boxes)


def _room(axes: Axes) -> float:
    """The pixels that a label has between the middles of its neighbours' gaps."""
    places = [(float(t.get_position()[0]), 0.0) for t in _labels(axes.xaxis)]
    apart = np.diff(np.sort(axes.transData.transform(places)[:, 0]))
    return float(min(apart, default=axes.bbox.width)) - _GAP * axes.figure.dpi


def _keep(axes: Axes, names: Sequence[str]) -> bool:
    """Let names stand beside each other in one line, if they can; likewise below."""
    label, room = axes.xaxis.get_ticklabels()[0], _room(axes)
    if fits := bool(names) and max(_width(name, label) for name in names) <= room:
        axes.xaxis.set_ticklabels(names)
    return fits


def _fold(axes: Axes, names: Sequence[str]) -> bool:
    """Break them between words."""
    label, room = axes.xaxis.get_ticklabels()[0], _room(axes)
    return _keep(axes, [_broken(name, label, room, whole=True) or name for name in names])


def _fold_at_equals(axes: Axes, names: Sequence[str]) -> bool:
    return _fold(axes, [re.sub(r"^([^(=]+=)(?=.)", "\\1\n", name) for name in names])


def _turn(axes: Axes, names: Sequence[str]) -> bool:
    """Let them stand upright, in as many lines as have room."""
    if not names:
        return False
    label, dpi = axes.xaxis.get_ticklabels()[0], axes.figure.dpi
    line = 1.2 * float(label.get_fontsize()) * dpi / 72
    most, length = max(1, int(_room(axes) / line)), _UPRIGHT * dpi
    made = list[str]()
    while not made or max(name.count("\n") for name in made) >= most:
        made = [_broken(name, label, length, whole=True) for name in names]
        made *= all(map(bool, made)) or not all(names)
        length *= 1.1
    axes.xaxis.set_ticklabels(made)
    axes.tick_params(axis="x", labelrotation=90)
    return True


def _thin(axes: Axes, names: Sequence[str]) -> bool:
    """Leave out numbers that others would cover."""
    if not all(re.fullmatch(r"[-+.\de]*", name) for name in names):
        return False
    if names:
        axes.xaxis.set_ticklabels(names)
        axes.tick_params(axis="x", labelrotation=0)
    elif not isinstance(axes.xaxis.get_major_locator(), FixedLocator):
        for most in range(len(_labels(axes.xaxis)) - 1, 0, -1):
            axes.xaxis.set_major_locator(MaxNLocator(most))
            if not _covered(axes):
                return True
        return False
    kept, end = dict[float, str](), -inf
    for label in _labels(axes.xaxis):
        box = label.get_window_extent()
        if box.x0 > end:
            kept[label.get_position()[0]] = label.get_text()
            end = box.x1 + _GAP * axes.figure.dpi
    axes.set_xticks(list(kept), list(kept.values()) if names else None)
    return True


def _fit_cells(axes: Axes) -> None:
    """Make numbers in cells as small as the cells are wide; if that is too small, upright."""
    if not (cells := _cells(axes)):
        return
    across = len({text.get_position()[0] for text in cells})
    room = axes.bbox.width / across - _GAP * axes.figure.dpi
    size = float(cells[0].get_fontsize())
    fitting = size * room / max(_width(text.get_text(), text) for text in cells)
    for text in cells:
        text.set(fontsize=max(_SMALLEST, min(size, fitting)))
        text.set_rotation(0 if fitting >= _SMALLEST else 90)


def _cells(axes: Axes) -> list[Text]:
    """The numbers in cells, not what is written beside lines."""
    return [text for text in axes.texts if type(text) is Text]


def _rows_need(axes: Axes) -> float:
    """The height that axes must have for their rows not to cover each other, in pixels."""
    gap, high, need = _GAP * axes.figure.dpi, axes.bbox.height, 0.0
    for texts in (_labels(axes.yaxis), _cells(axes)):
        boxes = sorted(
            (text.get_window_extent() for text in texts), key=lambda box: box.y0 + box.y1
        )
        for a, b in pairwise(boxes):
            apart = (b.y0 + b.y1 - a.y0 - a.y1) / 2
            if apart > 1:
                need = max(need, ((a.height + b.height) / 2 + gap) * high / apart)
    return need
