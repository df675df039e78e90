"""Fine-tuning a model with a strategy, resumable at any moment."""

from __future__ import annotations

import copy
import json
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from tokenred.attention import ScoreMod
from tokenred.core.errors import ConfigError, DataError
from tokenred.core.lock import output_lock
from tokenred.data import ImageDataset, open_dataset
from tokenred.models.fit import state_digest
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.saving import check_loadable, save
from tokenred.reduced.wrap import wrap
from tokenred.strategies.config import to_config
from tokenred.strategies.score_mods import TopKeys
from tokenred.strategies.specs import StrategyLike, parse_spec
from tokenred.strategies.strategy import Strategy, recipes
from tokenred.training.augment import TrainingImages, images_digest, plain_images
from tokenred.training.devices import pick_accelerator
from tokenred.training.losses import Criterion, make_criterion
from tokenred.training.presets import method_of, settings_for
from tokenred.training.randomness import random_as
from tokenred.training.run_folder import Rows, RunFolder
from tokenred.training.settings import Settings
from tokenred.training.trainer import Trainer, frozen, top1

__all__ = ["Finetuned", "check_mask_is_read", "finetune"]

_PARTS = -4  # a stream of random numbers beside those of the trainer


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
    images, plain = _open(reduced, data, validation)
    accelerator = pick_accelerator(settings.amp, device)
    share = (accelerator.process_index, accelerator.num_processes)
    training = TrainingImages(
        reduced.base, images, settings, limit=limit, share=share, workers=workers
    )
    measured = DataLoader(
        Subset(plain, range(share[0], len(plain), share[1])),
        settings.batch_size,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
    identity: dict[str, Any] = settings.as_dict() | {
        "strategy": json.dumps(to_config(reduced.strategy), sort_keys=True),
        "data": images_digest(images, training.members),
        "validation": images_digest(plain, range(len(plain))),
    }
    path = Path(output).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    first = share[0] == 0
    with (
        output_lock(path) if first else nullcontext(),
        closing(RunFolder(path, tensorboard=tensorboard and first)) as folder,
    ):
        folder.clear(resume=resume, overwrite=overwrite)
        if taught:
            teacher = copy.deepcopy(reduced.base if teacher is None else teacher)
            teacher.eval().requires_grad_(False)
        identity["teacher"] = None if teacher is None else state_digest(teacher.state_dict())
        with frozen(reduced, settings.frozen):
            trainer = Trainer(reduced, teacher, criterion, settings, training.steps, accelerator)
            rows: Rows = []
            if resume and folder.state.exists():
                saved = folder.read_state(identity)
                trainer.load_state_dict(saved, str(folder.state))
                rows = saved["rows"]
                if first:
                    folder.write_log(rows)
            total, done = settings.epochs * training.steps, len(rows) * training.steps
            hidden = None if progress and first else True  # None: on a terminal only
            with tqdm(total=total, initial=done, unit="step", disable=hidden) as bar:
                for number in range(len(rows), settings.epochs):
                    row = trainer.epoch(number, training.epoch(number), bar.update)
                    row["top1"] = top1(trainer.result, measured, accelerator)
                    rows.append(row)
                    bar.set_postfix(loss=f"{row['loss']:.3f}", top1=f"{100 * row['top1']:.2f}")
                    if first:
                        if row["top1"] >= max(r["top1"] for r in rows):
                            save(trainer.result, folder.best, overwrite=True)
                        folder.write_state(identity, rows, trainer.state_dict())
                        folder.write_log(rows)
                    accelerator.wait_for_everyone()
        if first:
            save(trainer.result, folder.last, overwrite=True)
        accelerator.wait_for_everyone()
    reduced.eval()
    best = max(row["top1"] for row in rows)
    return Finetuned(trainer.result.eval(), rows[-1]["top1"], best, tuple(rows), folder.last)


def check_mask_is_read(strategy: Strategy) -> None:
    """Refuse a selector that masks in training where no score mod hides what is masked.

    All tokens stay in training then, and without the score mod they would go on seeing those that
    inference removes: the loss would fall, and the gathered model would be another.

    Raises:
        ConfigError: with the score mod that is missing.
    """
    if not strategy.selector.masks or any(_hides(mod) for mod in strategy.score_mods):
        return
    raise ConfigError(
        f"{strategy.scorer!r} marks tokens by a mask in training, and none of the strategy's "
        f"score mods ({', '.join(map(repr, strategy.score_mods)) or 'there are none'}) hides them "
        "from the others; what is trained would not be what runs. "
        "Add score_mods=('PolicyMask',), as the recipe dynamicvit has."
    )


def _hides(mod: ScoreMod) -> bool:
    # A mask is there in training only, or needs a softmax of its own; TopKeys' is of its own map.
    own = type(mod).normalize is not ScoreMod.normalize and not isinstance(mod, TopKeys)
    return mod.in_training_only or own


def _criterion(settings: Settings, taught: bool) -> Criterion:
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


def _open(model: ReducedViT, data: Any, validation: Any) -> tuple[ImageDataset, ImageDataset]:
    """Images to train on, and those to measure on with the model's preprocessing."""
    classes = int(model.num_classes)
    images = data
    if not isinstance(data, ImageDataset):
        images = open_dataset(str(data), split="train", class_map=classes)
    elif validation is None:
        raise ConfigError("expected validation images beside a dataset in memory; pass them.")
    if validation is None:
        validation = data
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
    return images, plain_images(model.base, validation)
