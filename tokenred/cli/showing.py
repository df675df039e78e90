"""``tokenred show`` and ``tokenred graph``: strategies and graphs on a photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from PIL import Image

from tokenred.cli.console import claim_pictures, make_folder, say
from tokenred.cli.options import (
    FILE,
    ClassMap,
    Data,
    ModelOptions,
    Overwrite,
    Pictures,
    Strategies,
    given_to,
    model_and_data,
    numbers,
    options_of,
    read_class_map,
    reason,
    valid,
)
from tokenred.core.errors import ConfigError, DataError
from tokenred.core.files import PICTURES, check_suffix
from tokenred.core.notation import read_arguments
from tokenred.core.values import Blocks, Count, read

if TYPE_CHECKING:
    from torch import nn

    from tokenred.graphs import GraphBuilder

_TRACE = "tokenred.analysis:trace_picture"
_SHOW = "tokenred.analysis:show_tokens"


@options_of(_TRACE, _SHOW, leave_out="picture strategies classes layers", edges="--graph")
def show_command(
    image: Annotated[Path | None, FILE] = None,
    /,
    *,
    model: ModelOptions = ModelOptions(),
    data: Data = None,
    split: str | None = None,
    index: Annotated[int, valid(Count, "--index")] = 0,
    class_map: ClassMap = None,
    strategy: Strategies = ("gtp", "tome"),
    layers: str | None = None,
    classes: Annotated[Path | None, FILE] = None,
    output: Pictures = (Path("tokens.png"),),
    overwrite: Overwrite = False,
    demo: bool = False,
    **options: Any,
) -> None:
    """Show which patches of a photograph remain.

    After some blocks, and which token owns each patch. One row per strategy: the photograph, then
    one panel per block. The row's title gives the predicted class and its probability.

    Args:
        image: a photograph; or choose one with --data and --index.
        split: the split of --data, such as test or val.
        index: the index of an image in --data, from 0.
        layers: the blocks to show, from 0, such as 0,4,8,11; by default four, evenly spaced.
        classes: a file with one class name per line, if the model's are not known.
        demo: show an image of the bundled digits, with their model.
    """
    if demo and (image or data or model != ModelOptions()):
        raise ConfigError("--demo chooses the image and the model; leave those options out.")
    data = "digits" if demo else data
    if (image is None) == (data is None):
        raise ConfigError("expected a photograph: the path of one, or --data (and --index).")
    blocks = numbers("--layers", layers, int, "numbers of blocks such as 0,4,8")
    if blocks is not None:
        read(Blocks, list(blocks), "--layers")
    names = None if classes is None else _names(classes)
    mapped = read_class_map(class_map)
    photograph = None if image is None else _open(image, model)
    if data is not None:
        model, data = model_and_data(model, data, split, mapped)
    paths = claim_pictures(output, overwrite)
    model.refuse_unreachable()
    from tokenred.analysis import save_figure, show_tokens, trace_picture
    from tokenred.analysis.lineup import named_specs

    specs = named_specs(strategy)
    loaded = model.load()
    transform = None
    if photograph is None:
        photograph, transform, known = _from_data(loaded, str(data), split, index, mapped)
        names = names or known
    picture = trace_picture(
        loaded, photograph, specs, blocks, classes=names, transform=transform,
        **given_to(_TRACE, options),
    )  # fmt: skip
    unknown = "no classes"
    if model.random_weights:  # what the model predicts means nothing
        unknown = "random weights"
        options.setdefault("title", model.title)
        dense, *rows = (replace(r, prediction=None) for r in (picture.dense, *picture.rows))
        picture = replace(picture, dense=dense, rows=tuple(rows))
    figure = show_tokens(picture, **given_to(_SHOW, options))
    written = save_figure(figure, *paths, overwrite=overwrite)
    lines = []
    for row in (picture.dense, *picture.rows):
        counts = ", ".join(f"{stage.tokens} after block {stage.layer}" for stage in row.stages)
        said = picture.said(row) or unknown
        lines.append(f"{row.label}: {said}{'; tokens: ' if counts else ''}{counts}")
    say(*lines, written=written)


@options_of()
def graph_command(
    image: Annotated[Path | None, FILE] = None,
    /,
    *,
    demo: bool = False,
    model: ModelOptions = ModelOptions(),
    builder: Annotated[str, Parameter(name=["--builder", "-b"])] = "mixed:M=8",
    patch: Annotated[
        tuple[int, ...], Parameter(name=["--patch", "-p"]), valid(Sequence[Count], "--patch")
    ] = (),
    all_edges: bool = False,
    output: Pictures = (Path("tokenred-out/graph.png"),),
    overwrite: Overwrite = False,
) -> None:
    """Draw the token graph of a photograph.

    Who chooses whom, and how often each is chosen. The graph is built from the embedded patches, as
    in GTP.

    Args:
        image: a photograph.
        demo: use a bundled picture instead of a photograph.
        builder: NAME[:KEY=VALUE,…] of a graph.
        patch: draw only the choices of this patch; repeatable.
        all_edges: draw the edges of all patches, including those between grid neighbours.
    """
    if (image is None) != demo:
        raise ConfigError("expected the path of a photograph, or --demo; one of them.")
    if builder.partition(":")[0].strip().casefold() == "none":
        raise ConfigError("expected a --builder that makes a graph, got none.")
    picture = None if image is None else _open(image, model)
    for path in output:
        path = check_suffix(path, PICTURES)
        make_folder(path.parent, (path.name,), overwrite=overwrite)
    claim_pictures(output, overwrite)
    model.refuse_unreachable()
    from torch.utils.data import DataLoader

    from tokenred.analysis import draw_graph, graph_statistics, image_graph, save_figure
    from tokenred.data.digits import DigitsSource

    chosen = _builder(builder)
    picture = picture or DigitsSource().image(0)
    loaded = model.load()
    found = image_graph(loaded, picture, chosen)
    # A loader of the one image; the label is not used.
    alone: DataLoader[object] = DataLoader([(found.image[0], 0)])  # type: ignore[arg-type]
    statistics = graph_statistics(loaded, alone, chosen, name=model.title, progress=False)
    name = "a bundled digit" if image is None else image.name
    every = range(found.graph.num_nodes) if all_edges else None
    figure = draw_graph(
        found.graph, found.pixels, patches=patch or every, far_only=False if all_edges else None,
        in_degree=True, title=f"{builder}, {model.title} on {name}",
    )  # fmt: skip
    say(statistics, written=save_figure(figure, *output, overwrite=True))


def _builder(text: str) -> GraphBuilder:
    """From ``mixed:M=8`` to the builder."""
    name, _, arguments = text.partition(":")
    config = {"name": name.strip()} | read_arguments(arguments, text)
    from tokenred.strategies.strategy import from_config

    return from_config({"recipe": "random", "graph": config}).graph


def _names(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the names of the classes in {path}: {reason(error)}."
        ) from error
    return tuple(line.strip() for line in lines if line.strip())


def _open(path: Path, model: ModelOptions) -> Image.Image:
    if model.model is None:
        raise ConfigError("expected --model for a photograph; --demo has a picture and its model.")
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        told = f"expected a photograph at {path}: {reason(error)}; check the path."
        raise DataError(told) from error


def _from_data(
    model: nn.Module, data: str, split: str | None, index: int, class_map: Any
) -> tuple[Image.Image, Any, tuple[str, ...] | None]:
    """An image of a dataset, its preprocessing, and the names of its classes."""
    from tokenred.analysis.measure.inputs import open_for
    from tokenred.data.classes import class_names

    dataset = open_for(model, data, split=split, class_map=class_map)
    if not 0 <= index < len(dataset):
        raise ConfigError(
            f"expected --index from 0 to {len(dataset) - 1} in {dataset.name}, got {index}."
        )
    if reason := dataset.why_unreadable(index):
        raise DataError(f"{dataset.name_of(index)} cannot be read: {reason}.")
    # ImageNet's folders are named by numbers, so the model's own names come first.
    names = class_names(model) or dataset.classes
    return dataset.source.image(index), dataset.transform, names
