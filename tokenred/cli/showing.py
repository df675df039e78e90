"""``tokenred show``: what strategies leave of a photograph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenred.cli.console import make_console, say_written
from tokenred.cli.model_options import (
    ModelName,
    Overwrite,
    Split,
    Weights,
)
from tokenred.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn

__all__ = ["show_command"]

_OUTPUT = Path("tokens.png")
_STRATEGIES = ("gtp", "tome")


def show_command(
    image: Annotated[
        Path | None, typer.Argument(help="A photograph; or name one with --data and --index.")
    ] = None,
    model: ModelName = "digits",
    checkpoint: Weights = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Untrained; the tokens kept mean little.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(help="'digits' (embedded), 'cifar10[:PATH]', an image folder, zip or tar."),
    ] = None,
    split: Split = None,
    index: Annotated[int, typer.Option(help="Which image of --data, from 0.")] = 0,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy", "-s", help="As in `tokenred compare`; repeat it for more rows.",
            show_default=" and ".join(_STRATEGIES),
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(help="Blocks to look at, from 0: 0,4,8,11.", show_default="four, evenly"),
    ] = None,
    holders: Annotated[
        bool,
        typer.Option(
            "--holders/--no-holders", help="Colour the patches that stand for others, or blank "
            "all that is gone.",
        ),
    ] = True,
    graph: Annotated[
        bool, typer.Option("--graph", help="Draw the graph's edges from what is left to what is "
                           "gone."),
    ] = False,
    classes: Annotated[
        Path | None, typer.Option(help="Names of the classes, one a line, where the model's are "
                                  "not known."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Above the figure.")] = None,
    width: Annotated[float, typer.Option(help="In inches.", min=1)] = 7.0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Ending in .png, .pdf or .svg.")
    ] = _OUTPUT,
    overwrite: Overwrite = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="An image of the embedded digits, with their model.")
    ] = False,
) -> None:  # fmt: skip
    """Show what is left of a photograph after some blocks, and who stands for which patch.

    One row a strategy: the photograph, then one panel a block. The row's title says which class
    the model then sees, and how sure it is.
    """
    if demo and (image or data or model != "digits" or checkpoint or random_weights):
        raise ConfigError("--demo chooses image and model itself; leave those out.")
    if demo:
        data = "digits"
    if (image is None) == (data is None):
        raise ConfigError("expected a photograph: the path of one, or --data (and --index).")
    blocks = _blocks(layers)
    names = _names(classes)
    # Heavy libraries only now, so that --help is quick.
    from tokenred.analysis.plots.canvas import check_figure_path, save_figure
    from tokenred.analysis.plots.token_pictures import show_tokens
    from tokenred.analysis.token_picture import trace_picture
    from tokenred.models import load_model

    path = check_figure_path(output, overwrite=overwrite)
    photograph = None if image is None else _open(image)
    loaded = load_model(model, checkpoint=checkpoint, pretrained=False if random_weights else None)
    transform = None
    if photograph is None:
        photograph, transform, known = _from_data(loaded, str(data), split, index)
        names = names or known
    picture = trace_picture(
        loaded, photograph, strategy or list(_STRATEGIES), blocks,
        classes=names, transform=transform, edges=graph,
    )  # fmt: skip
    figure = show_tokens(picture, holders=holders, title=title, width=width)
    written = save_figure(figure, path, overwrite=overwrite)
    console = make_console()
    for row in (picture.dense, *picture.rows):
        counts = ", ".join(f"{stage.tokens} after block {stage.layer}" for stage in row.stages)
        said = picture.said(row) or "no classes"
        console.print(f"{row.label}: {said}{'; tokens: ' if counts else ''}{counts}")
    say_written(console, written)


def _blocks(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"expected --layers as whole numbers with commas between, such as 0,4,8; got {text!r}."
        ) from None


def _names(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the names of the classes in {path}: {error}.") from error
    return tuple(line.strip() for line in lines if line.strip())


def _open(path: Path) -> Image:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"expected a photograph at {path}, got {error}.") from error


def _from_data(
    model: nn.Module, data: str, split: str | None, index: int
) -> tuple[Image, Any, tuple[str, ...] | None]:
    """An image of a dataset, its preprocessing, and the names of its classes."""
    from tokenred.analysis.measure.inputs import open_for
    from tokenred.data.classes import class_names

    dataset = open_for(model, data, split=split)
    if not 0 <= index < len(dataset):
        raise ConfigError(
            f"expected --index from 0 to {len(dataset) - 1} in {dataset.name}, got {index}."
        )
    if reason := dataset.why_unreadable(index):
        raise DataError(f"{dataset.name_of(index)} cannot be read: {reason}.")
    # Folders of ImageNet are named by numbers, so the model's own names go first.
    names = class_names(model) or dataset.classes
    return dataset.source.image(index), dataset.transform, names
