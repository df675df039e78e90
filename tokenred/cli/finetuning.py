"""``tokenred finetune``: train a model with a strategy for some epochs."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter

from tokenred.cli.console import say
from tokenred.cli.options import OUTPUT, ModelOptions, Strategy, assignments, options_of, source_for
from tokenred.core.errors import ConfigError, UntrainedPartWarning
from tokenred.reduced.wrap import gmacs, wrap
from tokenred.strategies.specs import parse_spec
from tokenred.training import METHOD_SETTINGS, PRESETS, finetune, method_of, settings_for

__all__ = ["finetune_command"]

_assignments = partial(assignments, option="--set")


@options_of(finetune, leave_out="settings")
def finetune_command(
    *,
    output: Annotated[Path, OUTPUT],
    strategy: Strategy,
    model: ModelOptions = ModelOptions(),
    data: str | None = None,
    preset: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    amp: str | None = None,
    setting: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    dry_run: bool = False,
    threads: int | None = None,
    resume: bool = False,
    **options: Any,
) -> None:
    """Fine-tune a model with a strategy. A killed run resumes and reaches the same weights.

    Several GPUs or hosts: ``accelerate launch -m tokenred finetune …``.

    Args:
        output: folder for weights, state.pt and log.csv.
        data: 'digits' (embedded; the default with the digits model), 'cifar10[:PATH]', an image
            folder, a zip or a tar; its train split.
        preset: digits or cifar10 (settings for small images), or paper (the method's own); by
            default chosen by --data.
        epochs: in place of the settings'.
        batch_size: likewise.
        lr: likewise.
        seed: likewise.
        amp: no, bf16 or fp16.
        setting: any other setting as KEY=VALUE, such as --set mixup=0; repeatable.
        dry_run: print settings and layers without training.
        threads: CPU threads of PyTorch.
        resume: continue a killed run, or start if there is none.
    """
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"expected --threads from 1, got {threads}.")
        torch.set_num_threads(threads)
    source = source_for(model, data)
    spec = parse_spec(strategy)
    chosen = preset or source.partition(":")[0]
    small = None if chosen == "paper" or (preset is None and chosen not in PRESETS) else chosen
    method = spec.method if spec.method in METHOD_SETTINGS else method_of(spec.strategy)
    given = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "seed": seed, "amp": amp}
    changes = {k: v for k, v in given.items() if v is not None} | _assignments(setting)
    settings = settings_for(method, small).replace(**changes)
    loaded = model.load()
    plan = spec.resolve(gmacs(loaded))
    with warnings.catch_warnings():
        # Training is what the warning asks for.
        warnings.simplefilter("ignore", UntrainedPartWarning)
        if dry_run:
            told = (f"{name:>16} {value}" for name, value in settings.as_dict().items())
            say(*told, repr(wrap(loaded, plan)))
            return
        result = finetune(
            loaded, plan, source, output=output, settings=settings, resume=resume, **options
        )
    say(
        f"{spec.label}: top-1 {100 * result.top1:.2f}% after {len(result.rows)} epochs, "
        f"{100 * result.best:.2f}% at best",
        written=[result.path],
    )
