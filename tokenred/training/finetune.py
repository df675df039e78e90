"""Fine-tune a model with a strategy; a run can be resumed at any time."""

import copy
import json
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from tokenred.attention import ScoreMod
from tokenred.core.errors import ConfigError, DataError
from tokenred.core.files import prepare_folder
from tokenred.core.lock import output_lock
from tokenred.core.progress import progress_bar
from tokenred.core.tensors import state_digest
from tokenred.core.values import Count, Size
from tokenred.data import ImageDataset, balanced_subset, open_dataset
from tokenred.data.classes import ClassMap
from tokenred.data.layout import NoSplitsError
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.saving import check_loadable, save
from tokenred.reduced.wrap import gmacs, wrap
from tokenred.strategies.config import to_config
from tokenred.strategies.score_mods import TopKeys
from tokenred.strategies.specs import StrategyLike, parse_spec
from tokenred.strategies.strategy import Strategy, recipes
from tokenred.training.augment import TrainingImages, images_digest, plain_images
from tokenred.training.devices import pick_accelerator, random_as
from tokenred.training.losses import Criterion, make_criterion
from tokenred.training.run_folder import Rows, RunFolder
from tokenred.training.settings import Settings, method_of, settings_for
from tokenred.training.trainer import Trainer, correct, frozen

_PARTS = -4  # a random stream separate from the trainer's
DENSE, SHELF, TUNED = "dense", "off the shelf", "fine-tuned"
"""What `Finetuned.correct` tells about: the dense model and the strategy before training, and the
model after it."""


@dataclass(frozen=True)
class Finetuned:
    """The result of fine-tuning.

    Attributes:
        model: the model after the last epoch (averaged if the settings say so), in eval mode.
        top1: its accuracy on the validation images, in 0..1.
        best: the highest accuracy after any epoch.
        rows: one per epoch, as in the log.
        path: the saved model, for `tokenred.load`.
        correct: for ``"dense"``, ``"off the shelf"`` (the strategy before training) and
            ``"fine-tuned"``, ``(n,)``: 1 for each validation image that is classified correctly, 0
            for the others, NaN for those not read; `tokenred.analysis.paired_difference` compares
            two of them. Empty for a dry run.
    """

    model: ReducedViT
    top1: float
    best: float
    rows: tuple[dict[str, float], ...]
    path: Path
    correct: Mapping[str, Tensor]


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
    workers: Count = 0,
    limit: Size | None = None,
    class_map: ClassMap = None,
    tensorboard: bool = False,
    dry_run: bool = False,
    progress: bool = True,
    tell: Callable[[str], object] | None = None,
) -> Finetuned:
    """Fine-tune a model with a strategy. The model's own weights change.

    The dense model and the strategy off the shelf are evaluated first. After each epoch the folder
    contains ``best.safetensors``, ``log.csv`` and ``state.pt``, from which a killed run can be
    resumed to the same weights; after the last epoch also ``last.safetensors``.

    Args:
        model: a timm model that `wrap` takes.
        strategy: the strategy to train with, as for `wrap`.
        data: training images: a dataset, or anything `tokenred.data.open_dataset` accepts (its
            ``train`` split is used; all of it if it has no splits and ``validation`` is given).
        output: the output folder; created if missing.
        validation: images for measuring accuracy; by default the validation split of ``data``.
        settings: default is the method's settings, see `settings_for`.
        teacher: used if the settings require a teacher; default is a copy of the model before
            training.
        resume: continue from the folder's ``state.pt`` if there is one. Pass the same images, and
            the same initial model weights: they are the teacher.
        overwrite: replace an earlier run's files.
        device: cpu, cuda, …; by default a GPU if available.
        workers: number of image-loading processes; it does not affect the result.
        limit: maximum number of training images, and of validation images, balanced over the
            classes.
        class_map: as for `tokenred.data.open_dataset`; None for as many classes as the model has.
        tensorboard: also write TensorBoard events; needs the extra ``train``.
        dry_run: check everything that a run checks before it trains, then stop. Nothing is written
            or changed, and the result has no accuracies.
        progress: show progress on standard error.
        tell: called with a line on the dense model, the strategy off the shelf, and each epoch.

    Raises:
        ConfigError: if the settings do not fit the model or data, a mask is never read, or the
            resumed run was started differently.
        OutputExistsError: if the folder contains a run and neither ``resume`` nor ``overwrite`` is
            set.
        OutputBusyError: if another process is training in the folder.
        DataError: if a label exceeds the model's classes, or no image can be read.
        CheckpointError: if the model cannot be saved, or ``state.pt`` is damaged.
    """
    folder = RunFolder(Path(output).expanduser(), tensorboard=tensorboard)
    folder.check(resume=resume, overwrite=overwrite)
    if dry_run:
        model = copy.deepcopy(model)
    # Learned parts start from random weights.
    with random_as(0 if settings is None else settings.seed, _PARTS):
        reduced = wrap(model, strategy)
    check_mask_is_read(reduced.strategy)
    if settings is None:
        method = parse_spec(strategy).method
        settings = settings_for(method if method in recipes else method_of(reduced.strategy))
    taught = teacher is not None or settings.teacher
    criterion = _criterion(settings, taught)
    check_loadable(reduced)
    images, plain = _open(reduced, data, validation, class_map)
    accelerator = pick_accelerator(settings.amp, device)
    rank, count = accelerator.process_index, accelerator.num_processes
    training = TrainingImages(
        reduced.base, images, settings, limit=limit, share=(rank, count), workers=workers
    )
    judged = balanced_subset(plain, len(plain) if limit is None else limit, settings.seed)
    measured = DataLoader(
        Subset(plain, judged[rank::count]),
        settings.batch_size,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
    identity: dict[str, Any] = settings.as_dict() | {
        "strategy": json.dumps(to_config(reduced.strategy), sort_keys=True),
        "data": images_digest(images, training.members),
        "validation": images_digest(plain, judged),
    }
    first = rank == 0
    with ExitStack() as held:
        if not dry_run:
            prepare_folder(folder.path, ())
        if first and folder.path.is_dir():
            held.enter_context(output_lock(folder.path))
        folder.check(resume=resume, overwrite=overwrite)
        if taught:
            teacher = copy.deepcopy(reduced.base if teacher is None else teacher)
            teacher.eval().requires_grad_(False)
        identity["teacher"] = None if teacher is None else state_digest(teacher.state_dict())
        held.enter_context(frozen(reduced, settings.frozen))
        trainer = Trainer(reduced, teacher, criterion, settings, training.steps, accelerator)
        saved = folder.read_state(identity) if resume and folder.state.exists() else None
        judge = partial(correct, batches=measured, accelerator=accelerator, images=len(plain))
        found: dict[str, Tensor] = {}
        if not dry_run:
            folder.start(resume=resume, first=first)
            held.enter_context(closing(folder))
            found = {DENSE: judge(reduced.base), SHELF: judge(reduced)}
        if saved is not None:  # after the evaluation of what it began with
            trainer.load_state_dict(saved, str(folder.state))
        if dry_run:
            return Finetuned(reduced.eval(), math.nan, math.nan, (), folder.last, found)
        rows: Rows = [] if saved is None else saved["rows"]
        total, done = settings.epochs * training.steps, len(rows) * training.steps
        with progress_bar(total, "training", "steps", progress and first, initial=done) as bar:

            def say(line: str) -> None:
                if first and tell is not None:
                    with bar.external_write_mode():
                        tell(line)

            for name, cost in ((DENSE, gmacs(reduced.base)), (SHELF, gmacs(reduced))):
                say(f"{name:<15}{_top1(_mean(found[name]))}, {cost:.4g} GMACs per image")
            for row in rows:
                say(_told(row, settings.epochs))
            if first:
                folder.write_log(rows)
            for number in range(len(rows), settings.epochs):
                row = trainer.epoch(number, training.epoch(number), bar.update)
                found[TUNED] = judge(trainer.result)
                row["top1"] = _mean(found[TUNED])
                rows.append(row)
                bar.set_postfix(
                    loss=f"{row['loss']:.3f}", top1=f"{100 * row['top1']:.2f}", refresh=False
                )
                say(_told(row, settings.epochs))
                if first:
                    if row["top1"] >= max(r["top1"] for r in rows):
                        save(trainer.result, folder.best, overwrite=True)
                    folder.write_state(identity, rows, trainer.state_dict())
                    folder.write_log(rows)
                accelerator.wait_for_everyone()
        if TUNED not in found:  # all epochs were trained before
            found[TUNED] = judge(trainer.result)
        if first:
            save(trainer.result, folder.last, overwrite=True)
        accelerator.wait_for_everyone()
    reduced.eval()
    best = max(row["top1"] for row in rows)
    return Finetuned(trainer.result.eval(), rows[-1]["top1"], best, tuple(rows), folder.last, found)


def _mean(right: Tensor) -> float:
    return float(right.double().nanmean())


def _told(row: Mapping[str, float], epochs: int) -> str:
    """A line on an epoch."""
    name = f"epoch {row['epoch'] + 1:.0f}/{epochs}"
    less = f", reduction {row['reduction']:.0%}" if row["reduction"] < 1 else ""
    return f"{name:<15}{_top1(row['top1'])}, loss {row['loss']:.3f}{less}"


def _top1(share: float) -> str:
    return f"top-1 {100 * share:6.2f}%"


def check_mask_is_read(strategy: Strategy) -> None:
    """Refuse a selector that masks tokens in training if no score mod hides the masked tokens.

    In training all tokens stay. Without the score mod they would keep attending to tokens that
    inference removes: the loss would fall, but the reduced model would behave differently.
    """
    masks = any(step.selector.masks for step in strategy.steps)
    if not masks or any(_hides(mod) for mod in strategy.score_mods):
        return
    raise ConfigError(
        f"{strategy.scorer!r} marks tokens by a mask in training, and none of the strategy's "
        f"score mods ({', '.join(map(repr, strategy.score_mods)) or 'there are none'}) hides them "
        "from the others, so the trained model would differ from the one used at inference. "
        "Add score_mods=('PolicyMask',), as in the recipe dynamicvit."
    )


def _hides(mod: ScoreMod) -> bool:
    # A mask exists only in training, or needs its own softmax; TopKeys' mask is on its own map.
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
            f"criterion {settings.criterion!r} uses {', '.join(asks)}, which need a teacher. "
            "Set teacher=True for the dense model, pass one, or set these weights to 0."
        )
    return chosen


def _open(
    model: ReducedViT, data: Any, validation: Any, class_map: ClassMap
) -> tuple[ImageDataset, ImageDataset]:
    """Training images, and validation images with the model's preprocessing."""
    classes = int(model.num_classes)
    class_map = classes if class_map is None else class_map
    images = data
    if not isinstance(data, ImageDataset):
        images = _training_images(str(data), class_map, alone=validation is not None)
    elif validation is None:
        raise ConfigError("a dataset in memory needs validation images; pass validation=.")
    if validation is None:
        validation = _other_split(images, str(data), class_map)
    if not isinstance(validation, ImageDataset):
        validation = open_dataset(str(validation), class_map=class_map)
    for dataset in (images, validation):
        if max(dataset.labels) >= classes:
            raise DataError(
                f"expected labels below {classes}, the number of the model's classes, got "
                f"{max(dataset.labels)} in {dataset.name}; choose a model with more classes."
            )
    if all(validation.why_unreadable(index) for index in range(len(validation))):
        raise DataError(
            f"expected readable validation images, but none of the {len(validation)} in "
            f"{validation.name} can be read; check the data."
        )
    return images, plain_images(model.base, validation)


def _training_images(data: str, class_map: ClassMap, *, alone: bool) -> ImageDataset:
    """The split for training; all images if there are no splits and the data is for it alone."""
    try:
        return open_dataset(data, split="train", class_map=class_map)
    except NoSplitsError:
        if alone:
            return open_dataset(data, class_map=class_map)
        raise DataError(
            f"expected the splits train and val or test in {data}, found classes only; pass "
            "validation=PATH to train on all of it."
        ) from None


def _other_split(images: ImageDataset, data: str, class_map: ClassMap) -> ImageDataset:
    """The validation or test split of the data that has the training images."""
    try:
        found = open_dataset(data, class_map=class_map)
        known = [getattr(source, "names", None) for source in (found.source, images.source)]
        places = [vars(source).get("root") for source in (found.source, images.source)]
        if known[0] is None or known[0] != known[1] or places[0] != places[1]:
            return found
        missing = "found only the training images"
    except DataError as error:
        missing = str(error).rstrip(".")
    raise DataError(f"no validation images in {data} ({missing}); pass validation=PATH.")
