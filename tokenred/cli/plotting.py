"""``tokenred plot``: the figures of a paper, from the CSV of a comparison or a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tokenred.cli.plot_options import (
    Backbone,
    Columns,
    Fix,
    Frame,
    Height,
    Level,
    Metric,
    Output,
    Overwrite,
    PaperTable,
    Published,
    Text,
    Title,
    Width,
    figure_path,
    fixed_values,
    given,
    write_figure,
)
from tokenred.core.errors import ConfigError

__all__ = ["plot_app"]

plot_app = typer.Typer(
    help="Draw a figure from the CSV of a comparison or a study.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"max_content_width": 100},
)


@plot_app.command("tradeoff")
def tradeoff_command(
    frame: Frame,
    x: Annotated[str, typer.Option(help="'gmacs' or 'images_per_second'.")] = "gmacs",
    hue: Annotated[str, typer.Option(help="The column that tells lines apart.")] = "method",
    relative: Annotated[
        bool, typer.Option("--relative", help="Cost and accuracy relative to the dense model.")
    ] = False,
    front: Annotated[bool, typer.Option("--front", help="Draw the Pareto front.")] = False,
    published: Published = None,
    table: PaperTable = None,
    backbone: Backbone = None,
    paper_method: Annotated[
        list[str] | None, typer.Option(help="Its points of this method; repeat it for more.")
    ] = None,
    finetuned: Annotated[
        bool | None,
        typer.Option("--finetuned/--off-the-shelf", help="Its points with or without training."),
    ] = None,
    title: Title = None,
    width: Width = 3.5,
    height: Height = None,
    output: Output = None,
    overwrite: Overwrite = False,
) -> None:
    """Top-1 accuracy against cost or measured speed, a line a method, as in figure 1."""
    from tokenred.analysis.plots.published import read_published
    from tokenred.analysis.plots.tradeoff import tradeoff

    path = figure_path(output, "tradeoff", overwrite)
    theirs = None
    if published is not None:
        theirs = read_published(
            published, table=table, backbone=backbone, method=paper_method, finetuned=finetuned
        )
    figure = tradeoff(
        frame, x=x, hue=hue, published=theirs, relative=relative, front=front, title=title,
        width=width, **given(height=height),
    )  # fmt: skip
    write_figure(figure, path, overwrite)


@plot_app.command("lines")
def lines_command(
    frame: Frame,
    x: Annotated[str, typer.Option(help="The axis, such as alpha.")],
    metric: Metric = "top1",
    hue: Annotated[str | None, typer.Option(help="The column that tells lines apart.")] = None,
    fix: Fix = None,
    level: Level = 0.95,
    title: Title = None,
    width: Width = 3.5,
    height: Height = None,
    output: Output = None,
    overwrite: Overwrite = False,
) -> None:
    """A metric along one axis of a study, with intervals."""
    from tokenred.analysis.plots.metric_lines import metric_lines

    path = figure_path(output, "lines", overwrite)
    figure = metric_lines(
        frame, x, metric, hue=hue, fixed=fixed_values(fix), level=level, title=title, width=width,
        **given(height=height),
    )  # fmt: skip
    write_figure(figure, path, overwrite)


@plot_app.command("heat-map")
def heat_map_command(
    frame: Frame,
    x: Annotated[str, typer.Option(help="The axis across, such as alpha.")],
    y: Annotated[str, typer.Option(help="The axis down, such as M.")],
    metric: Metric = "top1",
    fix: Fix = None,
    level: Level = 0.95,
    title: Title = None,
    width: Width = 3.5,
    height: Height = None,
    output: Output = None,
    overwrite: Overwrite = False,
) -> None:
    """A metric over two axes of a study; the others are fixed or averaged over."""
    from tokenred.analysis.plots.heat_map import heat_map

    path = figure_path(output, "heat-map", overwrite)
    figure = heat_map(
        frame, x, y, metric, fixed=fixed_values(fix), level=level, title=title, width=width,
        height=height,
    )  # fmt: skip
    write_figure(figure, path, overwrite)


@plot_app.command("scorers")
def scorers_command(
    frame: Frame,
    x: Annotated[
        str | None, typer.Option(help="The axis of budgets.", show_default="P, if it varies")
    ] = None,
    metric: Metric = "top1",
    published: Published = None,
    fix: Fix = None,
    level: Level = 0.95,
    title: Title = None,
    width: Width = 3.5,
    height: Height = None,
    output: Output = None,
    overwrite: Overwrite = False,
) -> None:
    """Scorers side by side, as in figure 5 of the GTP paper."""
    from tokenred.analysis.plots.scorer_comparison import scorer_comparison

    path = figure_path(output, "scorers", overwrite)
    figure = scorer_comparison(
        frame, x, metric, published=published, fixed=fixed_values(fix), level=level, title=title,
        width=width, height=height,
    )  # fmt: skip
    write_figure(figure, path, overwrite)


@plot_app.command("graph-table")
def graph_table_command(
    frame: Frame,
    metric: Metric = "top1",
    columns: Columns = "P",
    published: Published = None,
    table: PaperTable = "4",
    backbone: Backbone = None,
    fix: Fix = None,
    text: Text = "markdown",
    title: Title = None,
    width: Width = 3.5,
    output: Output = None,
    overwrite: Overwrite = False,
) -> None:
    """Graph types over budgets, as in table 4, with published values beside."""
    _table(
        frame, "graph", "graph-table", text=text, title=title, width=width, output=output,
        overwrite=overwrite, metric=metric, columns=columns, published=published, table=table,
        backbone=backbone, fixed=fixed_values(fix),
    )  # fmt: skip


@plot_app.command("theta-table")
def theta_table_command(
    frame: Frame,
    metric: Metric = "top1",
    columns: Columns = "P",
    published: Published = None,
    table: PaperTable = "5",
    backbone: Backbone = None,
    fix: Fix = None,
    text: Text = "markdown",
    title: Title = None,
    width: Width = 3.5,
    output: Output = None,
    overwrite: Overwrite = False,
) -> None:
    """Shares of attention kept over budgets, as in table 5, with published values beside."""
    _table(
        frame, "theta", "theta-table", text=text, title=title, width=width, output=output,
        overwrite=overwrite, metric=metric, columns=columns, published=published, table=table,
        backbone=backbone, fixed=fixed_values(fix),
    )  # fmt: skip


def _table(
    frame: Path,
    rows: str,
    kind: str,
    *,
    text: str,
    title: str | None,
    width: float,
    output: Path | None,
    overwrite: bool,
    **options: Any,
) -> None:
    from tokenred.analysis.plots.frames import read_frame
    from tokenred.analysis.plots.tables import tabulate, theta_rows

    if text not in ("markdown", "latex"):
        raise ConfigError(f"expected --text as markdown or latex, got {text!r}.")
    path = figure_path(output, kind, overwrite)
    data = read_frame(frame)
    made = tabulate(data, theta_rows(data) if rows == "theta" else rows, **options)
    figure = made.figure(title=title, width=width)
    shown = made.markdown() if text == "markdown" else made.latex()
    write_figure(figure, path, overwrite, shown)
