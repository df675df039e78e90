"""``tokenred report``: results as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokenred.cli.console import claim, make_console, say_written

__all__ = ["report_command"]


def report_command(
    source: Annotated[
        list[Path],
        typer.Argument(
            help="The store of a study (.db), a CSV of a study, comparison, sweep or "
            "oversmoothing, or a sweep's .jsonl; several make one page."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The page, ending in .html.")
    ] = Path("report.html"),
    title: Annotated[
        str | None, typer.Option(help="Of the page.", show_default="model and data")
    ] = None,
    level: Annotated[float, typer.Option(help="Of the paired intervals of a store.")] = 0.95,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older page.")] = False,
) -> None:  # fmt: skip
    """Report results on one page that loads nothing: tables, figures, and what produced them.

    The tables can be sorted and searched. It reads while a grid is still running, too.
    """
    # Heavy libraries only now, so that --help is quick.
    from tokenred.analysis import report

    claim(output)
    written = report(source, output, title=title, level=level, overwrite=overwrite)
    say_written(make_console(), written)
