"""``tokenred reproduce``: the GTP paper's experiments, beside its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tokenred.cli.console import make_console, say_written
from tokenred.cli.model_options import (
    BatchSize,
    Device,
    Progress,
    Workers,
)
from tokenred.core.errors import ConfigError

__all__ = ["reproduce_command"]

_FOLDER = "tokenred-out/reproduction"
_MOST = 20


def reproduce_command(
    imagenet: Annotated[
        Path | None,
        typer.Option(
            help="ImageNet-1k's validation images: a folder of class folders, a zip or a tar."
        ),
    ] = None,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="The embedded model and 100 images in their place."),
    ] = False,
    costs: Annotated[
        bool, typer.Option("--costs", help="GMACs only: needs neither images nor weights.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="1000 fixed images.")] = False,
    limit: Annotated[int | None, typer.Option(help="So many images in place of these.")] = None,
    experiment: Annotated[
        list[str] | None,
        typer.Option(
            "--experiment", "-e", help="Such as table4; repeat it. --list shows them.",
            show_default="all",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m",
            help="DeiT-S, DeiT-B, …; repeat it. Any other model runs the same at scaled P.",
            show_default="those of each experiment",
        ),
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option("--checkpoint", help="NAME=FILE: weights of a model; repeat it."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the store, the CSV and the page.")
    ] = Path(_FOLDER),
    speed: Annotated[bool, typer.Option("--speed", help="Measure speed as well.")] = False,
    split: Annotated[str | None, typer.Option(help="Of the images, such as val.")] = None,
    batch_size: BatchSize = 64,
    workers: Workers = 0,
    device: Device = None,
    dtype: Annotated[str | None, typer.Option(help="float32, amp:bfloat16, …")] = None,
    seed: Annotated[int, typer.Option(help="Of chosen images.")] = 0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run what failed in an earlier run again.")
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="List the experiments and leave.")] = False,
    progress: Progress = True,
) -> None:  # fmt: skip
    """Run the GTP paper's tables and figures, and set each figure beside the published one.

    Killed at any moment, the same call goes on where it was. Leaves with 1 where a figure differs.
    """
    if show:
        _list()
        return
    # Heavy libraries only now, so that --help is quick.
    from tokenred.analysis.reproduction.reproduce import CSV, HTML, STORE, reproduce

    files = _files(checkpoint)
    console = make_console()
    done = reproduce(
        imagenet, output, experiments=experiment, models=model, checkpoints=files, demo=demo,
        costs=costs, quick=quick, limit=limit, speed=speed, split=split, batch_size=batch_size,
        workers=workers, device=device, dtype=dtype, seed=seed, retry_failed=retry_failed,
        progress=progress, tell=lambda line: typer.echo(line, err=True),
    )  # fmt: skip
    console.print(done)
    differing = done.differing
    for row in differing.head(_MOST).to_dict("records"):
        line = (
            f"✗ {row['experiment']}, {row['model']}, {row['strategy']}: {row['metric']} "
            f"{row['ours']:.2f}, published {row['published']:.2f}, tolerance {row['tolerance']:.2f}"
        )
        console.print(line, soft_wrap=True)
    if len(differing) > _MOST:
        console.print(f"… and {len(differing) - _MOST} more")
    names = (CSV, HTML) if costs else (STORE, CSV, HTML)
    say_written(console, [output / name for name in names])
    if len(differing):
        raise typer.Exit(1)


def _files(pairs: list[str] | None) -> dict[str, str | Path]:
    """Files of weights by model, from NAME=FILE.

    Raises:
        ConfigError: for text of another form, or a file that is not there.
    """
    found: dict[str, str | Path] = {}
    for pair in pairs or ():
        name, equals, file = pair.partition("=")
        if not (name and equals and file):
            raise ConfigError(f"expected --checkpoint NAME=FILE, got {pair!r}.")
        if not Path(file).expanduser().is_file():
            raise ConfigError(f"expected a file of weights for {name}, found none at {file}.")
        found[name] = file
    return found


def _list() -> None:
    from tokenred.analysis.reproduction.experiments import EXPERIMENTS

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("experiment", "what", "models"):
        table.add_column(heading, no_wrap=True)
    for experiment in EXPERIMENTS.values():
        table.add_row(experiment.name, experiment.title, ", ".join(experiment.backbones))
    make_console().print(table)
