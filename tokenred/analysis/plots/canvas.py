"""Figures of several axes, notes beneath them, and their files."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenred.analysis.plots.style import new_figure
from tokenred.core.errors import ConfigError, DataError
from tokenred.core.files import check_new, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SUFFIXES", "add_note", "check_figure_path", "new_grid", "save_figure"]

SUFFIXES = (".png", ".pdf", ".svg")
_NOTE_SIZE = 6
_GREY = "0.35"


@contextmanager
def new_grid(
    width: float, height: float, rows: int, columns: int, **options: Any
) -> Iterator[tuple[Figure, Any]]:
    """A figure and a ``(rows, columns)`` array of axes, drawn upon in the house style.

    Args:
        width, height: in inches.
        rows, columns: of axes.
        options: of matplotlib's ``Figure.subplots``.
    """
    with new_figure(width, height) as (figure, only):
        only.remove()
        yield figure, figure.subplots(rows, columns, squeeze=False, **options)


def add_note(figure: Figure, text: str) -> None:
    """Small print along the lower edge, wrapped to the figure's width."""
    if text:
        # A letter of this size is half as wide as it is high.
        letters = max(20, int(figure.get_figwidth() * 72 / (0.53 * _NOTE_SIZE)))
        figure.supxlabel(
            textwrap.fill(text, letters), fontsize=_NOTE_SIZE, color=_GREY, x=0.01, ha="left"
        )


def check_figure_path(path: str | Path, *, overwrite: bool = False) -> Path:
    """A path that a figure may be written to; call it before the work is done.

    Raises:
        ConfigError: for a suffix other than .png, .pdf and .svg.
        OutputExistsError: where the file exists.
        DataError: where its folder is not there.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"expected a figure's file to end in {', '.join(SUFFIXES)}, got {path.name!r}."
        )
    path = check_new(path, overwrite=overwrite)
    if not path.parent.is_dir():
        raise DataError(f"expected a folder at {path.parent}, found none; make it first.")
    return path


def save_figure(
    figure: Figure, path: str | Path, *, overwrite: bool = False, dpi: int = 300
) -> Path:
    """Write a figure as its suffix says, whole or not at all.

    A figure that is made again gives the same bytes: no time is in the file. Letters in a PDF stay
    text, in an SVG they are outlines.

    Args:
        figure: of matplotlib.
        path: ending in .png, .pdf or .svg.
        overwrite: whether an older file may be replaced.
        dpi: dots an inch, of a PNG and of pictures inside the others.

    Raises:
        ConfigError, OutputExistsError, DataError: as `check_figure_path`.
    """
    import matplotlib

    path = check_figure_path(path, overwrite=overwrite)
    kind = path.suffix.lower()[1:]
    undated: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    buffer = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "tokenred"}):
        options: dict[str, Any] = {"format": kind, "dpi": dpi, "metadata": undated.get(kind)}
        figure.savefig(buffer, **options)
    try:
        return write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}; choose another place.") from error
