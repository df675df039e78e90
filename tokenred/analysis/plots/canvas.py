"""Shared by all figures: size, fonts, colours, drawing a series, and writing files."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from tokenred.analysis.plots.fitting import fit_labels
from tokenred.analysis.terminal_table import fold
from tokenred.core.errors import ConfigError, shown
from tokenred.core.files import PICTURES, check_new, check_output, write_atomically
from tokenred.core.lock import output_lock
from tokenred.core.values import Inches, read

Colour = tuple[float, float, float]
# Blue, orange, dark green, red, pink, purple, cyan, grey, yellow, light green: with and without a
# colour deficiency, the closest two are further apart than in seaborn's "colorblind".
_COLOURS = (
    "#0173b2", "#de8f05", "#00604a", "#d5402a", "#d986c2", "#5a0f4a", "#5fd0f5", "#8c8c8c",
    "#ece133", "#b2df8a",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
BAR_GAP = 3.0  # points (1/72 inch) between error bars that would cover each other
BESIDE = "overlapping bars are drawn side by side"
_NOTE_SIZE = 6
_LETTERS = 20  # of a line of text beside the axes
_SERIES: Any = {
    "markersize": 4.5, "markeredgecolor": "white", "markeredgewidth": 0.5, "linewidth": 1.2,
    "zorder": 3,
}  # fmt: skip
_STYLE: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "figure.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.0,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "0.92",
    "grid.linewidth": 0.6,
    # Type 42 fonts: some publishers reject type 3.
    "pdf.fonttype": 42,
    # Labels contain user text; a dollar sign in it does not start a formula.
    "text.parse_math": False,
}


@contextmanager
def new_grid(
    width: float, height: float | None, least: float = 2.8, rows: int = 1, columns: int = 1,
    placed: Callable[[Figure], None] | None = None, **options: Any,
) -> Iterator[tuple[Figure, Any]]:  # fmt: skip
    """A figure and a ``(rows, columns)`` array of axes in the common style.

    In the end, `fit_labels` is called, and ``placed`` where everything has its place. Nothing
    changes pyplot's global state. ``width`` and ``height`` are inches, None for ``least`` and what
    long labels need; ``options`` are those of matplotlib's ``Figure.subplots``.
    """
    for name, inches in {"width": width, "height": least if height is None else height}.items():
        read(Inches, inches, name)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height or least), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, squeeze=False, **options)
        yield figure, grid
        fit_labels(figure, columns, height, placed)


@contextmanager
def new_figure(
    width: float, height: float | None, least: float = 2.8
) -> Iterator[tuple[Figure, Axes]]:
    """The same with a single pair of axes.

    Markers that others hide get a larger one of their own below.
    """
    with new_grid(width, height, least, placed=_show_hidden) as (figure, grid):
        yield figure, grid[0, 0]


def palette(count: int) -> list[Colour]:
    """Colours that colour-blind readers can tell apart (they repeat after ten)."""
    return [to_rgb(_COLOURS[i % len(_COLOURS)]) for i in range(count)]


def lab(colours: Sequence[Colour], sight: Any = ((1, 0, 0), (0, 1, 0), (0, 0, 1))) -> Any:
    """Colours in CIE Lab, as someone sees them whose ``sight`` is a matrix of linear RGB."""
    rgb = np.array(colours)
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = (linear @ np.transpose(sight)).clip(0, 1) @ np.transpose(
        [[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8727]]  # of white
    )
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def draw_series(
    axes: Axes, x: Any, y: Any, colour: Any, *, low: Any = None, high: Any = None,
    aside: float | None = None, **look: Any,
) -> None:  # fmt: skip
    """Draw a line with markers, and its intervals as a band, or as bars ``aside`` of the markers.

    ``low`` and ``high`` are the ends of the intervals; ``look`` is passed to ``Axes.plot``.
    """
    if low is not None and aside is not None:
        draw_bars(axes, x, y, colour, aside=aside, yerr=[y - low, high - y])
    elif low is not None:
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0, zorder=2)
    if len(x) == 1:  # nor does the legend show a line then
        look["linestyle"] = "none"
    axes.plot(x, y, color=colour, **{**_SERIES, **look})


_THICK = 2  # a line that more others cover does not become thicker
_HIDES = 0.55  # of its size: so near, a marker hides most of another


def _show_hidden(figure: Figure) -> None:
    """Draw what markers of later lines hide once more, larger and below them."""
    axes = figure.axes[0]
    drawn = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    drawn = [line for line in drawn if line.get_marker() not in ("None", "")]
    drawn = sorted(drawn, key=lambda line: line.get_zorder())  # of equals, the last is on top
    places = [axes.transData.transform(line.get_xydata()) for line in drawn]
    for i, line in enumerate(drawn):
        near = _HIDES * line.get_markersize() * axes.figure.dpi / 72
        above, covered = np.zeros(len(places[i]), int), False
        for other in places[i + 1 :]:
            apart = np.linalg.norm(places[i][:, None] - other, axis=-1)
            above += (hidden := (apart < near).any(axis=1))
            covered |= bool(hidden.all())
        for times in range(1, above.max(initial=0) + 1):
            x, y = np.where(above >= times, np.transpose(line.get_xydata()), np.nan)
            (again,) = axes.plot(x, y)
            again.update_from(line)
            if not covered:  # other lines only cross it
                again.set_linestyle("none")
            again.set(
                markersize=line.get_markersize() + 4 * times,
                label="_hidden",
                linewidth=line.get_linewidth() + 2 * min(times, _THICK),
                zorder=line.get_zorder() - 0.1 * times,
            )


def draw_bars(axes: Axes, x: Any, y: Any, colour: Any, *, aside: float = 0.0, **ends: Any) -> None:
    """Error bars, ``aside`` points to the right; ``ends`` are matplotlib's ``xerr`` or ``yerr``."""
    ends = {name: np.asarray(both) for name, both in ends.items()}
    drawn = axes.errorbar(
        x, y, fmt="none", ecolor=colour, elinewidth=0.8, capsize=1.7, capthick=0.8, alpha=0.65,
        zorder=2, **ends,
    )  # fmt: skip
    moved = ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
    for part in drawn.get_children():  # not before: the limits of the axes come from the data
        part.set_transform(axes.transData + moved)


def draw_rows(
    axes: Axes, names: Sequence[str], values: Any, ends: Any, looks: Sequence[tuple[Any, str]]
) -> None:
    """A row for each value with its interval, the last on top.

    ``ends`` are the two halves of the intervals, NaN if unknown; ``looks`` colours and markers.
    """
    values, ends = np.asarray(values), np.asarray(ends)
    for colour, marker in dict.fromkeys(looks):
        rows = [i for i, look in enumerate(looks) if look == (colour, marker)]
        known = not np.isnan(ends[:, rows]).all()
        axes.errorbar(
            values[rows], rows, xerr=ends[:, rows].clip(0) if known else None, fmt=marker,
            color=colour, elinewidth=1, capsize=2, markersize=5, zorder=3,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.08)
    # Room above the rows for the name of the dense model's line.
    axes.set_ylim(-0.5, len(names) + 0.1)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def name_cells(axes: Axes, across: Iterable[str], down: Iterable[str]) -> None:
    """Name the columns and rows of a heat map (seaborn would draw the figure to place them).

    The numbers in its cells become black or white, whichever has more contrast.
    """
    for axis, names in ((axes.xaxis, list(across)), (axes.yaxis, list(down))):
        axis.set_ticks([i + 0.5 for i in range(len(names))], names)
    axes.tick_params(length=0)
    (mesh,) = (each for each in axes.collections if isinstance(each, QuadMesh))
    numbers = np.ma.masked_array(mesh.get_array()).compressed()
    for text, (r, g, b, _) in zip(axes.texts, mesh.to_rgba(numbers), strict=False):
        ((light, *_),) = lab([(r, g, b)])
        text.set_color("black" if light > 50 else "white")


def draw_references(
    axes: Axes, values: Mapping[str, float], *, across: bool = True, unnamed: str = ""
) -> None:
    """Dashed lines at the values of references, with their names except the ``unnamed``."""
    draw = axes.axhline if across else axes.axvline
    highest = max(values.values(), default=0.0)
    for name, value in values.items():
        draw(value, color="0.55", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        # Beyond the right end of the line; or beside its top, with the other's on the other side.
        right = not across and len(values) > 1 and value == highest
        axes.annotate(
            "" if name == unnamed else fold(name, _LETTERS) if across else name,
            (1, value) if across else (value, 1),
            xytext=(2, 0) if across else (2 if right else -2, -2),
            xycoords=axes.get_yaxis_transform() if across else axes.get_xaxis_transform(),
            textcoords="offset points", ha="left" if across or right else "right",
            va="center" if across else "top", fontsize=6, color="0.4",
        )  # fmt: skip


def add_legend(figure: Figure, handles: Sequence[Any], place: str = "lower", **look: Any) -> None:
    """Add a legend below (or above) the axes, in as many columns as fit; the figure grows by it.

    A label wider than the figure is wrapped. ``look`` is passed to ``Figure.legend``.
    """
    look["loc"] = f"outside {place} center"
    room = 0.98 * figure.bbox.width  # glyphs differ a little with the resolution
    counts = {1, *(-(-len(handles) // rows) for rows in range(1, len(handles) + 1))}
    for columns in sorted(counts, reverse=True):
        legend = figure.legend(handles=handles, ncols=columns, **look)
        if columns == 1 or legend.get_window_extent().width <= room:
            break
        legend.remove()
    labels = [text.get_text() for text in legend.get_texts()]
    letters = max(map(len, labels), default=0)
    while legend.get_window_extent().width > room and (letters := letters - 1):
        for text, label in zip(legend.get_texts(), labels, strict=True):
            text.set_text(fold(label, letters))
    figure.set_figheight(figure.get_figheight() + legend.get_window_extent().height / figure.dpi)


def add_note(figure: Figure, text: str) -> None:
    """Add a caption along the lower edge, wrapped to the figure's width."""
    if text:
        figure.supxlabel(text, fontsize=_NOTE_SIZE, color="0.35", x=0.01, ha="left")


def figure_bytes(figure: Figure, kind: str = "png", dpi: int = 200) -> bytes:
    """A figure as the content of a png, pdf or svg; the same figure gives the same bytes."""
    undated: Any = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "tokenred"}):
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=undated)
    return buffer.getvalue()


def save_figure(
    figure: Figure, path: str | Path, *others: str | Path, overwrite: bool = False, dpi: int = 300
) -> tuple[Path, ...]:
    """Write a figure to one or more files, each in the format of its suffix.

    Each file is written completely or not at all. The same figure gives the same bytes: a file
    contains no timestamp. Text stays text in a PDF and becomes outlines in an SVG.

    Args:
        figure: of matplotlib.
        path, others: ending in .png, .pdf or .svg.
        overwrite: whether to replace existing files.
        dpi: dots per inch, for a PNG and for images inside the other formats.

    Returns:
        The paths.

    Raises:
        ConfigError: for another suffix, or something else than a figure.
        OutputExistsError: if a file exists; nothing is written then.
        DataError: if a file cannot be written.
        OutputBusyError: if another process is writing a file.

    Examples:
        >>> save_figure(figure, "tradeoff.pdf", "tradeoff.png")  # doctest: +SKIP
    """
    if not isinstance(figure, Figure):
        raise ConfigError(f"expected save_figure(figure, path), got {shown(figure)} as the figure.")
    paths = tuple(check_output(p, PICTURES, overwrite=overwrite) for p in (path, *others))
    for path in paths:
        content = figure_bytes(figure, path.suffix.lower()[1:], dpi)
        with output_lock(path):
            check_new(path, overwrite=overwrite)  # another process may have been faster
            write_atomically(path, content)
    return paths
