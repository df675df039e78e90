"""``tokenred oversmoothing``: how alike tokens become, block by block."""

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

__all__ = ["oversmoothing_command"]

_FOLDER = "tokenred-out/oversmoothing"
_CSV, _PNG = "oversmoothing.csv", "oversmoothing.png"
_STRATEGIES = ("gtp", "gtp:theta=0.6", "topk", "tome", "evit")
_PANELS = ("cosine", "cosine_difference", "high_frequency", "effective_rank")


def oversmoothing_command(
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
            "--strategy", "-s", help="NAME[:KEY=VALUE,…] or a .toml file; repeat it.",
            show_default=", ".join(_STRATEGIES),
        ),
    ] = None,
    share: Annotated[
        float,
        typer.Option(
            help="Of the dense model's GMACs that each strategy may cost. 1 for the schedules as "
            "the strategies have them."
        ),
    ] = 0.75,
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
    """Oversmoothing: how alike the image tokens become in each block, at the same cost.

    Without options: the embedded digits model and images. Only tokens alive after a block count.
    """
    source = data_for(model, data)
    if source is None:
        raise ConfigError(f"expected --data for the model {model!r}.")
    # Heavy libraries only now, so that --help is quick.
    from tokenred.analysis.lineup import named_specs
    from tokenred.analysis.measure.oversmoothing import oversmoothing
    from tokenred.analysis.plots.canvas import figure_bytes
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
    result = oversmoothing(
        loaded,
        source,
        specs,
        gmacs_share=None if share == 1 else share,
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
    write_atomically(paths[1], figure_bytes(result.plot(statistics=_PANELS)))
    console = make_console()
    console.print(result)
    say_written(console, paths)
