"""``tokenred agreement``: which patches methods keep, and how far they agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokenred.cli.console import claim, make_console, say_written
from tokenred.cli.model_options import (
    BatchSize,
    Device,
    Limit,
    Mean,
    ModelName,
    Overwrite,
    Progress,
    Split,
    Std,
    Weights,
    Workers,
    data_for,
    model_title,
    read_numbers,
)
from tokenred.core.errors import ConfigError

__all__ = ["agreement_command"]

_FOLDER = "tokenred-out/agreement"
_CSV, _PNG = "agreement.csv", "agreement.png"
_STRATEGIES = ("gtp", "topk", "tome", "evit", "random")


def agreement_command(
    model: ModelName = "digits",
    checkpoint: Weights = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="'digits' (embedded), 'cifar10[:PATH]', an image folder, a zip or a tar.",
            show_default="digits with the digits model",
        ),
    ] = None,
    split: Split = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy", "-s",
            help="NAME[:KEY=VALUE,…] or a .toml file; two or more. Their schedules are replaced.",
            show_default=", ".join(_STRATEGIES),
        ),
    ] = None,
    removed: Annotated[
        int | None,
        typer.Option(
            "--removed", "-P", help="Tokens removed in each block, by all methods alike.",
            show_default="8, or half of all tokens where a model has too few",
        ),
    ] = None,
    statistic: Annotated[
        str, typer.Option(help="What to draw: iou, survival or scores.")
    ] = "iou",
    layer: Annotated[
        int | None, typer.Option(help="Draw method against method in this block.")
    ] = None,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    workers: Workers = 0,
    device: Device = None,
    seed: Annotated[int, typer.Option(help="Of chosen images and bootstrap.")] = 0,
    mean: Mean = None,
    std: Std = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help=f"Folder for {_CSV} and {_PNG}.")
    ] = Path(_FOLDER),
    overwrite: Overwrite = False,
    progress: Progress = True,
) -> None:  # fmt: skip
    """Agreement: which patches methods keep, at the same counts in every block.

    Without options: the embedded digits model and images.
    """
    source = data_for(model, data)
    if source is None:
        raise ConfigError(f"expected --data for the model {model!r}.")
    if statistic not in ("iou", "survival", "scores"):
        raise ConfigError(f"expected --statistic iou, survival or scores, got {statistic!r}.")
    # Heavy libraries only now, so that --help is quick.
    from tokenred.analysis.lineup import named_specs
    from tokenred.analysis.measure.agreement import agreement
    from tokenred.analysis.plots.canvas import figure_bytes
    from tokenred.backbones import adapt
    from tokenred.core.files import prepare_folder, write_atomically
    from tokenred.models import load_model

    specs = named_specs(strategy or _STRATEGIES)
    paths = prepare_folder(output, (_CSV, _PNG), overwrite=overwrite)
    claim(output)
    loaded = load_model(
        model,
        checkpoint=checkpoint,
        mean=read_numbers("--mean", mean),
        std=read_numbers("--std", std),
    )
    depth = adapt(loaded).info.depth
    if layer is not None and not 0 <= layer < depth:
        raise ConfigError(f"expected --layer from 0 to {depth - 1}, got {layer}.")
    result = agreement(
        loaded,
        source,
        specs,
        removed=removed,
        limit=limit,
        batch_size=batch_size,
        workers=workers,
        device=device,
        seed=seed,
        split=split,
        name=model_title(model),
        progress=progress,
    )
    result.to_csv(paths[0], overwrite=True)
    figure = result.plot(statistic=statistic, layer=layer)
    write_atomically(paths[1], figure_bytes(figure))
    console = make_console()
    console.print(result)
    say_written(console, paths)
