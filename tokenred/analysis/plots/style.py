"""What all figures share: size, type, colours; and no global state of pyplot."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MARKERS", "new_figure", "palette", "png"]

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
_STYLE = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.92",
    "grid.linewidth": 0.6,
    # Fonts as outlines of type 42: some publishers refuse type 3.
    "pdf.fonttype": 42,
    # Labels are what users wrote; a dollar sign in them is no formula.
    "text.parse_math": False,
}


@contextmanager
def new_figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure and its axes, drawn upon in the house style.

    Args:
        width, height: in inches.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots()


def palette(count: int) -> list[tuple[float, float, float]]:
    """So many colours that colour-blind readers can tell apart (ten, then they repeat)."""
    import seaborn as sns

    colours: list[tuple[float, float, float]] = sns.color_palette("colorblind", count)
    return colours


def png(figure: Figure, dpi: int = 200) -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"format": "png", "dpi": dpi}
    figure.savefig(buffer, **options)
    return buffer.getvalue()
