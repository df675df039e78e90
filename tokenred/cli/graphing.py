"""``tokenred graph``: the token graph of a photograph, drawn and in numbers."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenred.cli.console import make_console, say_written
from tokenred.cli.model_options import (
    Mean,
    ModelName,
    Overwrite,
    Std,
    Weights,
    model_title,
    read_numbers,
)
from tokenred.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

    from tokenred.graphs import GraphBuilder

__all__ = ["graph_command"]

_OUTPUT = "tokenred-out/graph.png"


def graph_command(
    image: Annotated[
        Path | None, typer.Argument(help="A photograph.", show_default="none; see --demo")
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="An embedded picture instead of a photograph.")
    ] = False,
    model: ModelName = "digits",
    checkpoint: Weights = None,
    mean: Mean = None,
    std: Std = None,
    builder: Annotated[
        str, typer.Option("--builder", "-b", help="NAME[:KEY=VALUE,…] of a graph.")
    ] = "mixed:M=8",
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy", "-s", help="What drops tokens, to see which of them no kept one reaches."
        ),
    ] = "gtp",
    patch: Annotated[
        list[int] | None,
        typer.Option("--patch", "-p", help="Draw only what this patch chose; repeat it."),
    ] = None,
    all_edges: Annotated[
        bool, typer.Option("--all-edges", help="Draw edges between grid neighbours as well.")
    ] = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The picture: .png, .pdf or .svg.")
    ] = Path(_OUTPUT),
    overwrite: Overwrite = False,
) -> None:
    """The token graph of a photograph: who chose whom, who is chosen often, and its statistics.

    The graph is made of the embedded patches, as GTP does it.
    """
    if (image is None) != demo:
        raise ConfigError("expected the path of a photograph, or --demo; one of them.")
    # Heavy libraries only now, so that --help is quick.
    from torch.utils.data import DataLoader

    from tokenred.analysis.measure.token_graphs import graph_statistics, image_graph
    from tokenred.analysis.plots.canvas import check_figure_path, save_figure
    from tokenred.analysis.plots.graph_figures import graph_panels
    from tokenred.core.files import prepare_folder
    from tokenred.models import load_model

    chosen = _builder(builder)
    picture, name = _picture(image)
    prepare_folder(output.parent, (output.name,), overwrite=overwrite)
    check_figure_path(output, overwrite=overwrite)
    loaded = load_model(
        model,
        checkpoint=checkpoint,
        mean=read_numbers("--mean", mean),
        std=read_numbers("--std", std),
    )
    found = image_graph(loaded, picture, chosen)
    # A loader of the one image; the label counts for nothing.
    alone: DataLoader[object] = DataLoader([(found.image[0], 0)])  # type: ignore[arg-type]
    title = model_title(model)
    statistics = graph_statistics(
        loaded, alone, chosen, strategy=strategy, name=title, progress=False
    )
    figure = graph_panels(
        found.graph,
        found.pixels,
        patches=patch or None,
        far_only=False if all_edges else None,
        title=f"{builder}, {title} on {name}",
    )
    written = save_figure(figure, output, overwrite=True)
    console = make_console()
    console.print(statistics)
    say_written(console, written)


def _builder(text: str) -> GraphBuilder:
    """From ``mixed:M=8`` to the builder."""
    from tokenred.strategies.specs import parse_spec

    name, _, arguments = text.partition(":")
    try:
        ast.parse(f"{name.strip()}({arguments})", mode="eval")
    except SyntaxError:
        raise ConfigError(
            f"expected a graph builder such as 'mixed:M=8' or 'spatial', got {text!r}."
        ) from None
    # A builder is written as it is within a strategy.
    return parse_spec(f"random:graph={name.strip()}({arguments})").strategy.graph


def _picture(path: Path | None) -> tuple[Image, str]:
    from PIL import Image, UnidentifiedImageError

    if path is None:
        from tokenred.data.digits import digit_image, digits_arrays

        return digit_image(digits_arrays("test")[0][0]), "an embedded digit"
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB"), path.name
    except UnidentifiedImageError:
        raise DataError(f"expected a photograph at {path}, got another kind of file.") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check it.") from error
