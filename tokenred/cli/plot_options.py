"""What the sub-commands of ``tokenred plot`` share: options, and the way to the file."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenred.cli.console import make_console, say_written
from tokenred.core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Backbone",
    "Columns",
    "Fix",
    "Frame",
    "Height",
    "Level",
    "Metric",
    "Output",
    "Overwrite",
    "PaperTable",
    "Published",
    "Text",
    "Title",
    "Width",
    "figure_path",
    "fixed_values",
    "given",
    "write_figure",
]

Frame = Annotated[Path, typer.Argument(help="CSV of `tokenred compare`, or of a study.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Ending in .png, .pdf or .svg.", show_default="KIND.png"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an older file.")]
Width = Annotated[float, typer.Option(help="In inches; 3.3 to 3.5 is a column.", min=1)]
Height = Annotated[float | None, typer.Option(help="In inches.", min=0.5, show_default="fitting")]
Title = Annotated[str | None, typer.Option(help="Above the axes.", show_default="model and data")]
Metric = Annotated[str, typer.Option(help="The column of the values.")]
Level = Annotated[float, typer.Option(help="Of the intervals.")]
Fix = Annotated[
    list[str] | None,
    typer.Option("--fix", "-f", help="COLUMN=VALUE: only rows that have it; repeat it."),
]
Published = Annotated[
    Path | None, typer.Option(help="CSV of a paper's points, to be set beside the measured ones.")
]
PaperTable = Annotated[str | None, typer.Option("--table", help="Its points of this table.")]
Backbone = Annotated[
    list[str] | None, typer.Option(help="Its points of this model; repeat it for more.")
]
Columns = Annotated[str, typer.Option(help="The axis along the columns.")]
Text = Annotated[str, typer.Option(help="Also print the table, as 'markdown' or 'latex'.")]


def figure_path(output: Path | None, kind: str, overwrite: bool) -> Path:
    """Where the figure belongs; checked before any work is done."""
    from tokenred.analysis.plots.canvas import check_figure_path

    return check_figure_path(output or Path(f"{kind}.png"), overwrite=overwrite)


def write_figure(figure: Figure, path: Path, overwrite: bool, shown: str = "") -> None:
    """Write the figure, print what goes with it, and say so."""
    from tokenred.analysis.plots.canvas import save_figure

    written = save_figure(figure, path, overwrite=overwrite)
    console = make_console()
    if shown:
        console.print(shown, soft_wrap=True)
    say_written(console, written)


def given(**options: Any) -> dict[str, Any]:
    """The options that somebody chose; the others keep the function's own default."""
    return {name: value for name, value in options.items() if value is not None}


def fixed_values(pairs: list[str] | None) -> dict[str, Any]:
    """Columns and values, from COLUMN=VALUE.

    Raises:
        ConfigError: for text of another form.
    """
    fixed = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"expected --fix COLUMN=VALUE, such as P=8, got {pair!r}.")
        try:
            fixed[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            fixed[name] = value
    return fixed
