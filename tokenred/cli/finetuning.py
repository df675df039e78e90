"""``tokenred finetune``: train a model with a strategy for some epochs."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from tokenred.cli.console import check_resume, make_folder, say
from tokenred.cli.options import (
    OUTPUT,
    ClassMap,
    Data,
    ModelOptions,
    Overwrite,
    Strategy,
    assignments,
    model_and_data,
    options_of,
    read_class_map,
    valid,
)
from tokenred.cli.refusing import refuse_settings
from tokenred.core.errors import UntrainedPartWarning
from tokenred.core.files import check_folder
from tokenred.core.values import Size
from tokenred.data.places import check_there

if TYPE_CHECKING:
    from tokenred.training import Finetuned

_PAPER = "paper"
_SETTINGS = "tokenred.training:Settings"


@options_of("tokenred.training:finetune", leave_out="settings tell")
def finetune_command(
    *,
    output: Annotated[Path, OUTPUT],
    strategy: Strategy,
    model: ModelOptions = ModelOptions(),
    data: Data = None,
    class_map: ClassMap = None,
    preset: Literal["digits", "cifar10", "paper"] | None = None,
    epochs: Annotated[int | None, valid(Size, "--epochs")] = None,
    batch_size: Annotated[int | None, valid(Size, "--batch-size")] = None,
    lr: float | None = None,
    seed: int | None = None,
    amp: str | None = None,
    setting: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    dry_run: bool = False,
    threads: Annotated[int | None, valid(Size, "--threads")] = None,
    resume: bool = False,
    overwrite: Overwrite = False,
    **options: Any,
) -> None:
    """Fine-tune a model with a strategy.

    A killed run resumes and reaches the same weights. Prints the accuracy of the dense model, of
    the strategy off the shelf and after each epoch, and what training gained. Several GPUs or
    hosts: ``accelerate launch -m tokenred finetune …``.

    Args:
        output: folder for weights, state.pt and log.csv.
        preset: digits or cifar10 (settings for small images), or paper (the method's own); by
            default that of the data or of a bundled model, otherwise paper.
        epochs: in place of the value in the settings.
        batch_size: likewise.
        lr: likewise.
        seed: likewise.
        amp: no, bf16 or fp16.
        setting: any other setting as KEY=VALUE, such as --set mixup=0; repeatable.
        dry_run: check everything, print settings and layers, and stop before training.
        threads: CPU threads of PyTorch.
        resume: continue a killed run, or start if there is none.
    """
    check_resume(resume, overwrite)
    classes = read_class_map(class_map)
    model, source = model_and_data(model, data, class_map=classes)
    given = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "seed": seed, "amp": amp}
    changes = {k: v for k, v in given.items() if v is not None} | assignments(setting, "--set")
    refuse_settings(_SETTINGS, changes, given)
    if (validation := options.get("validation")) is not None:
        check_there(validation)
    names = () if resume or overwrite else ("state.pt",)
    make_folder(check_folder(output), names, overwrite=False, resumable=True)
    model.refuse_unreachable()
    import torch

    from tokenred.reduced.wrap import gmacs
    from tokenred.strategies.specs import parse_spec
    from tokenred.training import METHOD_SETTINGS, finetune, method_of, preset_of, settings_for

    if threads is not None:
        torch.set_num_threads(threads)
    spec = parse_spec(strategy)
    method = spec.method if spec.method in METHOD_SETTINGS else method_of(spec.strategy)
    small = preset_of(model.name, source) if preset is None else preset
    small = None if small == _PAPER else small
    settings = settings_for(method, small).replace(**changes)
    loaded = model.load()
    with warnings.catch_warnings():
        # Training is what the warning asks for.
        warnings.simplefilter("ignore", UntrainedPartWarning)
        result = finetune(
            loaded, spec.resolve(gmacs(loaded)), source, output=output, settings=settings,
            resume=resume, overwrite=overwrite, class_map=classes, dry_run=dry_run, tell=say,
            **options,
        )  # fmt: skip
    whose = f"settings of {method}, preset {small or _PAPER}"
    if os.environ.get("RANK", "0") != "0":
        return  # the first of several processes prints
    if dry_run:
        told = (f"{name:>16} {value}" for name, value in settings.as_dict().items())
        say(whose, *told, repr(result.model), "", "Nothing was trained.")
        return
    say(*_gains(result), f"{spec.label}, {whose}: {100 * result.best:.2f}% top-1 in the best epoch",
        written=[result.path])  # fmt: skip


def _gains(result: Finetuned) -> list[str]:
    """What training changed, and what is still missing, in points with intervals."""
    import torch

    from tokenred.analysis import paired_difference
    from tokenred.training.finetune import DENSE, SHELF, TUNED

    lines = []
    for name, before in (("gain", SHELF), ("from dense", DENSE)):
        pair = torch.stack((result.correct[TUNED], result.correct[before]))
        pair = pair[:, ~pair.isnan().any(dim=0)]
        found = paired_difference(*(row.bool().numpy() for row in pair))
        low, middle, high = (100 * x for x in (found.low, found.difference, found.high))
        lines.append(
            f"{name:<15}{middle:+.2f} points [{low:+.2f}, {high:+.2f}] (95% interval, paired, "
            f"{pair.shape[1]} images)"
        )
    return lines
