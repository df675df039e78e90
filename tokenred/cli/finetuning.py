"""``tokenred finetune``: train a model with a strategy for some epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tokenred.cli.console import make_console, say_written
from tokenred.cli.model_options import (
    Device,
    ModelName,
    Threads,
    Weights,
    Workers,
    data_for,
)
from tokenred.core.errors import ConfigError

__all__ = ["finetune_command"]


def finetune_command(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for weights, state.pt and log.csv.")
    ],
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy", "-s", help="As in `tokenred compare`: gtp:P=6, evit@0.45, a .toml file."
        ),
    ],
    model: ModelName = "digits",
    checkpoint: Weights = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="'digits' (embedded), 'cifar10[:PATH]', an image folder, a zip or a tar; its "
            "train split.",
            show_default="digits with the digits model",
        ),
    ] = None,
    validation: Annotated[
        str | None, typer.Option(help="Likewise, to measure on.", show_default="--data")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Settings for small images: digits or cifar10; or paper, the method's own.",
            show_default="by --data",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="In place of the settings'.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Likewise.")] = None,
    lr: Annotated[float | None, typer.Option(help="Likewise.")] = None,
    seed: Annotated[int | None, typer.Option(help="Likewise.")] = None,
    amp: Annotated[str | None, typer.Option(help="no, bf16 or fp16.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting, KEY=VALUE: --set mixup=0; repeat it."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a killed run was; start if none was.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run's files.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print settings and layers, and train nothing.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="Train on so many images at most.")] = None,
    workers: Workers = 0,
    threads: Threads = None,
    device: Device = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Events as well (extra 'train').")
    ] = False,
    progress: Annotated[
        bool, typer.Option("--progress/--no-progress", help="A bar on a terminal.")
    ] = True,
) -> None:  # fmt: skip
    """Fine-tune a model with a strategy; a killed run resumes to the same weights.

    Several GPUs or hosts: ``accelerate launch -m tokenred finetune …``.
    """
    # Heavy libraries only now, so that --help is quick.
    import warnings

    import torch

    from tokenred.core.errors import UntrainedPartWarning
    from tokenred.models import load_model
    from tokenred.reduced.api import gmacs
    from tokenred.reduced.wrap import wrap
    from tokenred.strategies.specs import parse_spec
    from tokenred.training import finetune, method_of, settings_for
    from tokenred.training.presets import METHOD_SETTINGS, PRESETS

    if threads is not None:
        if threads < 1:
            raise ConfigError(f"expected --threads from 1, got {threads}.")
        torch.set_num_threads(threads)
    source = data_for(model, data)
    if source is None:
        raise ConfigError(f"expected --data to train the model {model!r} on.")
    spec = parse_spec(strategy)
    chosen = preset or source.partition(":")[0]
    small = None if chosen == "paper" or (preset is None and chosen not in PRESETS) else chosen
    method = spec.method if spec.method in METHOD_SETTINGS else method_of(spec.strategy)
    settings = settings_for(method, small)
    given = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "seed": seed, "amp": amp}
    changes = {k: v for k, v in given.items() if v is not None} | _assignments(setting or [])
    settings = settings.replace(**changes)
    loaded = load_model(model, checkpoint=checkpoint)
    plan = spec.resolve(gmacs(loaded))
    console = make_console()
    with warnings.catch_warnings():
        # They are about to be trained.
        warnings.simplefilter("ignore", UntrainedPartWarning)
        if dry_run:
            for name, value in settings.as_dict().items():
                console.print(f"{name:>16} {value}")
            console.print(repr(wrap(loaded, plan)), soft_wrap=True)
            return
        result = finetune(
            loaded, plan, source,
            output=output, validation=validation, settings=settings, resume=resume,
            overwrite=overwrite, device=device, workers=workers, limit=limit,
            tensorboard=tensorboard, progress=progress,
        )  # fmt: skip
    console.print(
        f"{spec.label}: top-1 {100 * result.top1:.2f}% after {len(result.rows)} epochs, "
        f"{100 * result.best:.2f}% at best"
    )
    say_written(console, result.path)


def _assignments(texts: list[str]) -> dict[str, Any]:
    from tokenred.strategies.specs import read_assignment

    return dict(read_assignment(text, "--set") for text in texts)
