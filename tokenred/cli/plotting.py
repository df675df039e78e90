"""``tokenred plot``: the figures of a paper, from the CSV of a comparison or a study."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from tokenred.cli.console import claim_pictures, say
from tokenred.cli.options import FILE, Overwrite, Pictures, assignments, given_to, options_of
from tokenred.core.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

plot_app = App(name="plot", help="Draw a figure from the CSV of a comparison or a study.")

_TRADEOFF = "tokenred.analysis:tradeoff"
_TABULATE = "tokenred.analysis:tabulate"
_FIGURE = "tokenred.analysis.plots.tables:Table.figure"
_COLUMNS = ("x", "y", "hue", "rows", "columns", "metric")  # options that name some
_Frame = Annotated[
    Path, FILE, Parameter(help="CSV of `tokenred compare`, or CSV or store (.db) of a study.")
]
_Fix = Annotated[
    tuple[str, ...],
    Parameter(name=["--fix", "-f"], help="COLUMN=VALUE: only rows with this value; repeatable."),
]
_Published = Annotated[
    Path | None, FILE, Parameter(help="CSV of a paper's points, drawn next to the measured ones.")
]
_Backbones = Annotated[
    tuple[str, ...], Parameter(help="only the paper's points of this model; repeatable.")
]
_Methods = Annotated[
    tuple[str, ...], Parameter(help="only the paper's points of this method; repeatable.")
]


@plot_app.command(name="tradeoff")
@options_of(_TRADEOFF, leave_out="frame fixed published")
def tradeoff_command(
    frame: _Frame,
    /,
    *,
    published: _Published = None,
    table: str | None = None,
    backbone: _Backbones = (),
    paper_method: _Methods = (),
    finetuned: Annotated[bool | None, Parameter(negative="--off-the-shelf")] = None,
    fix: _Fix = (),
    output: Pictures = (Path("tradeoff.png"),),
    overwrite: Overwrite = False,
    **options: Any,
) -> None:
    """Top-1 accuracy against cost or measured speed, one line per method, as in figure 1.

    Args:
        table: only the paper's points from this table, such as 1.
        finetuned: only the paper's points with, or without, training.
    """
    chosen = (table, backbone, paper_method)
    if published is None and (any(chosen) or finetuned is not None):
        raise ConfigError("expected --published CSV with options that choose the paper's points.")
    fixed, claimed = _fixed(fix), claim_pictures(output, overwrite)
    data = _read(frame, fixed, options)
    from tokenred.analysis import read_published, tradeoff

    theirs = None
    if published is not None:
        theirs = read_published(
            published, table=table, backbone=backbone or None, method=paper_method or None,
            finetuned=finetuned,
        )  # fmt: skip
    figure = tradeoff(data, published=theirs, fixed=fixed, **given_to(_TRADEOFF, options))
    _write(figure, claimed, overwrite)


def _figure(name: str, kind: str, about: str) -> None:
    """Add the command for a kind of figure that one function draws."""

    def command(
        frame: _Frame,
        /,
        *,
        fix: _Fix = (),
        output: Pictures = (Path(f"{kind}.png"),),
        overwrite: Overwrite = False,
        **options: Any,
    ) -> None:
        fixed, claimed = _fixed(fix), claim_pictures(output, overwrite)
        data = _read(frame, fixed, options)
        from tokenred import analysis

        _write(getattr(analysis, name)(data, fixed=fixed, **options), claimed, overwrite)

    command.__doc__ = about
    give = options_of(f"tokenred.analysis:{name}", leave_out="frame fixed")
    plot_app.command(give(command), name=kind)


_figure("metric_lines", "lines", "A metric along one axis of a study, with intervals.")
_figure("heat_map", "heat-map", "A metric over two axes; the others are fixed or averaged over.")
_figure("scorer_comparison", "scorers", "Scorers side by side, as in figure 5 of the GTP paper.")


def _add_table(kind: str, rows: str | None, number: str | None, about: str) -> None:
    """Add the command for a table, of the paper or with any rows."""
    default = (Path(f"{kind}.png"),)

    def command(
        frame: _Frame,
        /,
        *,
        published: _Published = None,
        table: str | None = number,
        backbone: _Backbones = (),
        fix: _Fix = (),
        text: Literal["markdown", "latex"] | None = None,
        output: Pictures = default,
        overwrite: Overwrite = False,
        **options: Any,
    ) -> None:
        pictures = () if text and output is default else output  # is: not if the user names it
        fixed, claimed = _fixed(fix), claim_pictures(pictures, overwrite)
        data, given = _read(frame, fixed, options), given_to(_TABULATE, options)
        from tokenred.analysis import tabulate
        from tokenred.analysis.plots.tables import theta_rows

        if rows is not None:
            given["rows"] = theta_rows(data) if rows == "theta" else rows
        made = tabulate(
            data, published=published, table=table, backbone=backbone or None, fixed=fixed, **given
        )
        shown = made.latex() if text == "latex" else made.markdown()
        if not claimed:
            say(shown)
            return
        _write(made.figure(**given_to(_FIGURE, options)), claimed, overwrite, shown)

    command.__doc__ = f"""{about}

    Args:
        table: only the paper's points from this table, such as 4.
        text: print the table in this format; a picture is then written only with --output.
    """
    theirs = "self frame fixed" if rows is None else "self frame rows fixed"
    give = options_of(_TABULATE, _FIGURE, leave_out=theirs)
    plot_app.command(give(command), name=kind)


_add_table("table", None, None, "A metric over two or more axes of a study, as a table.")
_add_table("graph-table", "graph", "4", "Graph types over budgets, as in table 4.")
_add_table("theta-table", "theta", "5", "Shares of attention kept over budgets, as in table 5.")


def _read(place: Path, fixed: dict[str, Any], options: dict[str, Any]) -> pd.DataFrame:
    """The frame of a figure, with the columns that the options name."""
    from tokenred.analysis.plots.frames import need, read_frame  # without matplotlib

    asked = [options[name] for name in _COLUMNS if options.get(name)]
    named = [name for each in asked for name in ([each] if isinstance(each, str) else each)]
    if twice := [name for at, name in enumerate(named) if name in named[:at]]:
        raise ConfigError(f"expected different columns, got {twice[0]} twice; choose others.")
    frame = read_frame(place, options.get("level"))
    need(frame, list(fixed), "fixing a value")
    need(frame, named, "this figure")
    return frame


def _write(figure: Figure, paths: list[Path], overwrite: bool, *shown: str) -> None:
    """Write the figure, then print its text."""
    from tokenred.analysis import save_figure

    say(*shown, written=save_figure(figure, *paths, overwrite=overwrite))


def _fixed(texts: Iterable[str]) -> dict[str, Any]:
    """Columns and values, from COLUMN=VALUE; "none" stays text, as the name of a graph."""
    found = assignments(texts, "--fix", "COLUMN=VALUE")
    return {name: "none" if value is None else value for name, value in found.items()}
