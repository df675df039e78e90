"""Fine-tuning a model with a strategy, resumable at any moment."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from tokenred.core.errors import ConfigError, DataError, OutputExistsError
from tokenred.core.lock import output_lock
from tokenred.data import ImageDataset, balanced_subset, open_dataset
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.saving import check_loadable, save
from tokenred.reduced.wrap import wrap
from tokenred.strategies.config import to_config
from tokenred.strategies.specs import StrategyLike, parse_spec
from tokenred.strategies.strategy import recipes
from tokenred.training.augment import open_training, train_loader
from tokenred.training.checks import check_mask_is_read
from tokenred.training.devices import pick_device
from tokenred.training.logs import Log
from tokenred.training.loop import Trainer, top1
from tokenred.training.losses import make_criterion
from tokenred.training.presets import method_of, settings_for
from tokenred.training.randomness import random_as
from tokenred.training.settings import Settings
from tokenred.training.state import (
    check_same_run,
    images_digest,
    read_state,
    weights_digest,
    write_state,
)

__all__ = ["Finetuned", "finetune"]

_PARTS = -4  # a stream of random numbers beside those of the trainer
STATE, BEST, LAST, LOG = "state.pt", "best.safetensors", "last.safetensors", "log.csv"


@dataclass(frozen=True)
class Finetuned:
    """What a fine-tuning gave.

    Attributes:
        model: as it is after the last epoch (averaged where the settings say so), in eval mode.
        top1: its share of right answers on the validation images, in 0..1.
        best: the highest share after any epoch.
        rows: one an epoch, as in the log.
        path: of the model, to be read with `tokenred.load`.
    """

    model: ReducedViT
    top1: float
    best: float
    rows: tuple[dict[str, float], ...]
    path: Path


def finetune(
    model: nn.Module,
    strategy: StrategyLike,
    data: ImageDataset | str | Path,
    *,
    output: str | Path,
    validation: ImageDataset | str | Path | None = None,
    settings: Settings | None = None,
    teacher: nn.Module | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    workers: int = 0,
    limit: int | None = None,
    tensorboard: bool = False,
    progress: bool = True,
) -> Finetuned:
    """Fine-tune a model with a strategy. The model's own weights change.

    After each epoch the folder holds ``state.pt``, from which a killed run goes on to the same
    weights, ``best.safetensors`` and ``log.csv``; after the last one ``last.safetensors``.

    Args:
        model: a timm model that `wrap` takes.
        strategy: what it is to run with, as for `wrap`.
        data: to train on: images, or what `tokenred.data.open_dataset` takes (its ``train``).
        output: the folder, made where it is missing.
        validation: images to measure on; by default those that ``data`` names for it.
        settings: by default the method's, see `settings_for`.
        teacher: instead of the model as it was, where the settings ask for a teacher.
        resume: go on from the folder's ``state.pt``; without one, start. Give the same images,
            and the same model weights as at first: they are the teacher.
        overwrite: replace an earlier run's files.
        device: cpu, cuda, …; by default a GPU where there is one.
        workers: processes that load images; they do not change the result.
        limit: train on so many images at most, an even choice of the classes.
        tensorboard: write events as well; needs the extra ``train``.
        progress: show a bar.

    Raises:
        ConfigError: for settings that do not fit model or data, a mask that nothing reads, or a
            resumed run that began otherwise.
        OutputExistsError: where the folder has a run and neither ``resume`` nor ``overwrite``.
        OutputBusyError: where another process trains into the folder.
        DataError: for labels that the model cannot give, or no image that can be read.
        CheckpointError: for a model that could not be saved, or a damaged ``state.pt``.
    """
    # Learned parts begin at random.
    with random_as(0 if settings is None else settings.seed, _PARTS):
        reduced = wrap(model, strategy)
    check_mask_is_read(reduced.strategy)
    if settings is None:
        method = parse_spec(strategy).method
        settings = settings_for(method if method in recipes else method_of(reduced.strategy))
    taught = teacher is not None or settings.teacher
    criterion = _criterion(settings, taught)
    check_loadable(reduced)
    training, plain = _open(reduced, data, validation, settings)
    target = pick_device(settings.amp, device)
    if settings.batch_size % (2 * target.count if settings.mixes else target.count):
        raise ConfigError(
            f"expected a batch size that {target.count} processes share evenly, in pairs where "
            f"images are mixed; got {settings.batch_size}."
        )
    members = list(range(len(training)))
    if limit is not None:
        members = balanced_subset(training.images, limit, settings.seed)
    steps = len(members) // settings.batch_size
    if steps == 0:
        raise ConfigError(
            f"expected at least one batch of {settings.batch_size}, got {len(members)} images; "
            "set a smaller batch_size."
        )
    identity: dict[str, Any] = settings.as_dict() | {
        "strategy": json.dumps(to_config(reduced.strategy), sort_keys=True),
        "data": images_digest(training.images, members),
        "validation": images_digest(plain, range(len(plain))),
    }
    folder = Path(output).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with output_lock(folder) if target.rank == 0 else nullcontext():
        _clear(folder, resume=resume, overwrite=overwrite)
        log = Log(folder, tensorboard=tensorboard and target.rank == 0)

        if taught:
            teacher = copy.deepcopy(reduced.base if teacher is None else teacher)
            teacher.eval().requires_grad_(False)
        identity["teacher"] = None if teacher is None else weights_digest(teacher)
        frozen = [
            p for n, p in reduced.named_parameters() if n in settings.frozen and p.requires_grad
        ]
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            trainer = Trainer(reduced, teacher, criterion, settings, steps, target)
            rows: list[dict[str, float]] = []
            if resume and (folder / STATE).exists():
                saved = read_state(folder / STATE)
                check_same_run(saved["identity"], identity, folder / STATE)
                trainer.load_state_dict(saved)
                rows = saved["rows"]
            share = (target.rank, target.count)
            total, done = settings.epochs * steps, len(rows) * steps
            quiet = not progress or target.rank > 0
            with tqdm(total=total, initial=done, unit="step", disable=quiet or None) as bar:
                for epoch in range(len(rows), settings.epochs):
                    loader = train_loader(
                        training, members, epoch, settings.batch_size, share, workers
                    )
                    row = {"epoch": float(epoch)} | trainer.epoch(epoch, loader, bar.update)
                    row["top1"] = top1(
                        trainer.result, _plain_batches(plain, settings.batch_size, share, workers),
                        target,
                    )  # fmt: skip
                    rows.append(row)
                    bar.set_postfix(loss=f"{row['loss']:.3f}", top1=f"{100 * row['top1']:.2f}")
                    if target.rank == 0:
                        if row["top1"] >= max(r["top1"] for r in rows):
                            save(trainer.result, folder / BEST, overwrite=True)
                        write_state(
                            folder / STATE,
                            {"identity": identity, "rows": rows, **trainer.state_dict()},
                        )
                        log.write(rows)
                    target.wait()
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)
            log.close()
        if target.rank == 0:
            log.write(rows)
            save(trainer.result, folder / LAST, overwrite=True)
        target.wait()
        best = max(row["top1"] for row in rows)
        reduced.eval()
        return Finetuned(trainer.result.eval(), rows[-1]["top1"], best, tuple(rows), folder / LAST)


def _criterion(settings: Settings, taught: bool) -> Any:
    # Mixup smooths the targets itself.
    smoothing = 0.0 if settings.mixes else settings.label_smoothing
    chosen = make_criterion(
        settings.criterion, **({"label_smoothing": smoothing} | dict(settings.weights))
    )
    asks = [n for n in ("distill", "kept_tokens", "cls_feature") if getattr(chosen, n)]
    if asks and not taught:
        raise ConfigError(
            f"criterion {settings.criterion!r} weighs {', '.join(asks)}, which need a teacher. "
            "Set teacher=True for the dense model, pass one, or set these weights to 0."
        )
    return chosen


def _open(
    model: ReducedViT, data: Any, validation: Any, settings: Settings
) -> tuple[Any, ImageDataset]:
    classes = int(model.num_classes)
    if isinstance(data, ImageDataset):
        if validation is None:
            raise ConfigError("expected validation images beside a dataset in memory; pass them.")
        images = data
    else:
        images = open_dataset(str(data), split="train", class_map=classes)
    if validation is None:
        validation = str(data)
    if not isinstance(validation, ImageDataset):
        validation = open_dataset(str(validation), class_map=classes)
    for dataset in (images, validation):
        if max(dataset.labels) >= classes:
            raise DataError(
                f"expected labels below {classes}, the number of the model's classes, got "
                f"{max(dataset.labels)} in {dataset.name}; choose a model with that many."
            )
    if all(validation.why_unreadable(index) for index in range(len(validation))):
        raise DataError(
            f"expected images to measure on, and none of the {len(validation)} in "
            f"{validation.name} can be read; check the data."
        )
    training, _ = open_training(model.base, images, settings)
    return training, open_training(model.base, validation, settings)[1]


def _clear(folder: Path, *, resume: bool, overwrite: bool) -> None:
    old = [name for name in (STATE, BEST, LAST, LOG) if (folder / name).exists()]
    if old and not (resume or overwrite):
        raise OutputExistsError(
            f"{folder} holds a run already ({', '.join(old)}). Resume it, choose another folder, "
            "or overwrite it."
        )
    if old and not resume:
        for name in old:
            (folder / name).unlink()


def _plain_batches(
    data: ImageDataset, batch: int, share: tuple[int, int], workers: int
) -> DataLoader[Any]:
    mine: Sequence[int] = range(share[0], len(data), share[1])
    pinned = torch.cuda.is_available()
    return DataLoader(Subset(data, mine), batch, num_workers=workers, pin_memory=pinned)
