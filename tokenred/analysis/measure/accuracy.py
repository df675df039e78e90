"""Accuracy of a model on labelled images."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from tokenred.analysis.measure.context import autocast, base_of, check_amp, check_device, measured
from tokenred.analysis.measure.inputs import Data, batches, open_for
from tokenred.core.errors import ConfigError, DataError, InputError
from tokenred.data import SKIPPED_LABEL, ImageDataset
from tokenred.data.class_map import ClassMap

__all__ = ["Evaluation", "evaluate", "evaluate_together"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model makes of labelled images; one entry an image that could be read.

    Attributes:
        index: ``(n,)`` positions of the images in the dataset.
        label, prediction: ``(n,)`` classes.
        rank: ``(n,)`` how many classes the model puts before the label; 0 is right.
        classes: number of classes.
        skipped: name and reason of each image that could not be read; they are not counted.
        seconds: wall-clock time, loading included, of all models that were evaluated together.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    rank: NDArray[np.int64]
    classes: int
    skipped: tuple[tuple[str, str], ...]
    seconds: float

    @property
    def count(self) -> int:
        """Images counted."""
        return len(self.label)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """``(n,)`` whether each image is right."""
        return np.equal(self.rank, 0)

    @property
    def top1(self) -> float:
        """Top-1 accuracy in percent."""
        return self.topk(1)

    @property
    def top5(self) -> float | None:
        """Top-5 accuracy in percent; None for fewer than 5 classes, where all would be right."""
        return self.topk(5) if self.classes >= 5 else None

    def topk(self, k: int) -> float:
        """Percent of images whose label is among the first ``k`` classes.

        Raises:
            ConfigError: for a k that is no class count of this model.
        """
        if not 1 <= k <= self.classes:
            raise ConfigError(f"expected k between 1 and {self.classes} classes, got {k!r}.")
        return 100.0 * float((self.rank < k).mean())

    def __repr__(self) -> str:
        top5 = "" if self.top5 is None else f"top5={self.top5:.2f}, "
        return (
            f"Evaluation(top1={self.top1:.2f}, {top5}count={self.count}, "
            f"skipped={len(self.skipped)}, seconds={self.seconds:.1f})"
        )


def evaluate(
    model: nn.Module,
    data: Data,
    *,
    batch_size: int = 64,
    workers: int = 0,
    limit: int | None = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    progress: bool = True,
    split: str | None = None,
    class_map: ClassMap = None,
    seed: int = 0,
) -> Evaluation:
    """Accuracy of a model, in eval mode; afterwards the model is in the mode it was in.

    An image that cannot be read is left out and named in ``skipped``.

    Args:
        model: dense or reduced; gives logits ``(b, classes)``.
        data: what `tokenred.data.open_dataset` takes (``"digits"``, a folder, a zip …), an
            `ImageDataset`, or a loader of (images, labels) or (images, labels, indices). The first
            two get the model's own preprocessing.
        batch_size, workers: of the loading; a loader has its own.
        limit: at most so many images: a fixed, class-balanced choice; of a loader, the first.
        device: where to run; None for where the model is.
        amp: ``torch.bfloat16`` or ``torch.float16`` for mixed precision.
        progress: show a bar on a terminal.
        split, class_map: see `tokenred.data.open_dataset`.
        seed: of the choice that ``limit`` makes.

    Raises:
        DataError: for data that is empty, unreadable, or of other classes than the model's.
        InputError: for logits of another shape, or NaN among them.
        ConfigError: for numbers out of range or an unknown device.
    """
    if not isinstance(data, DataLoader):
        data = open_for(base_of(model), data, split=split, class_map=class_map)
    (evaluation,) = evaluate_together(
        {"": model},
        data,
        batch_size=batch_size,
        workers=workers,
        limit=limit,
        device=device,
        amp=amp,
        progress=progress,
        seed=seed,
    ).values()
    return evaluation


def evaluate_together(
    models: Mapping[str, nn.Module],
    data: ImageDataset | DataLoader[Any],
    *,
    batch_size: int = 64,
    workers: int = 0,
    limit: int | None = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    progress: bool = True,
    seed: int = 0,
) -> dict[str, Evaluation]:
    """Several models on the same batches, so that images are decoded once.

    Args:
        models: by name, on the same device; all want the same preprocessing.
        data: with a transform, or a loader.
        batch_size, workers, limit, device, amp, progress, seed: as in `evaluate`.

    Raises:
        DataError, InputError, ConfigError: as `evaluate`.
    """
    check_amp(amp)
    target = check_device(device)
    stream, total = batches(data, batch_size=batch_size, workers=workers, limit=limit, seed=seed)
    rows: dict[str, list[Tensor]] = {name: [] for name in models}
    classes = dict.fromkeys(models, 0)
    bad: list[int] = []
    start = time.perf_counter()
    with ExitStack() as stack:
        for model in models.values():
            place = stack.enter_context(measured(model, target))
        # Not inference mode: what a model caches then could never be trained with.
        stack.enter_context(torch.no_grad())
        stack.enter_context(autocast(place, amp))
        # disable=None: quiet where stderr is no terminal.
        quiet = None if progress else True
        bar = stack.enter_context(
            tqdm(total=total, desc="accuracy", unit="img", leave=False, disable=quiet)
        )
        for images, labels, indices in stream:
            good = labels != SKIPPED_LABEL
            bad += indices[~good].tolist()
            labels, indices = labels[good], indices[good]
            for name, model in models.items() if len(labels) else ():
                logits = model(images[good].to(place, _dtype(model)))
                classes[name] = _check_logits(logits, labels)
                rows[name].append(_ranked(logits.cpu().float(), labels, indices))
            bar.update(len(good))
    skipped = tuple(_why(data, i) for i in bad)
    if not all(rows.values()):
        first = f"; the first: {skipped[0][0]} ({skipped[0][1]})" if skipped else ""
        raise DataError(
            f"expected images to evaluate on, got none, and {len(skipped)} that cannot be "
            f"read{first}. Check the data."
        )
    seconds = time.perf_counter() - start
    return {
        name: _evaluation(torch.cat(rows[name]), classes[name], skipped, seconds) for name in models
    }


def _dtype(model: nn.Module) -> torch.dtype:
    weight = next(model.parameters(), None)
    return torch.float32 if weight is None else weight.dtype


def _check_logits(logits: Any, labels: Tensor) -> int:
    images = len(labels)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != images:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"expected logits ({images}, classes) from the model, got {got}; "
            "evaluate a classifier, with one head."
        )
    if torch.isnan(logits).any():
        raise InputError(
            "expected numbers from the model, got NaN; check its weights, and the precision."
        )
    classes = logits.shape[1]
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise DataError(
            f"expected labels from 0 to {classes - 1}, as the model has {classes} classes, got "
            f"{int(labels.min())} to {int(labels.max())}; check labels and model."
        )
    return classes


def _ranked(logits: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
    """Rows of index, label, prediction, rank; of equal logits the first class goes first."""
    own = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & before)).sum(dim=1)
    prediction = torch.where(rank == 0, labels, logits.argmax(dim=1))
    return torch.stack((indices.long(), labels.long(), prediction, rank), dim=1)


def _evaluation(
    rows: Tensor, classes: int, skipped: tuple[tuple[str, str], ...], seconds: float
) -> Evaluation:
    index, label, prediction, rank = rows.T.contiguous().numpy()
    return Evaluation(index, label, prediction, rank, classes, skipped, seconds)


def _why(data: ImageDataset | DataLoader[Any], index: int) -> tuple[str, str]:
    source: Any = data
    if isinstance(data, DataLoader):
        source = data.dataset.dataset if isinstance(data.dataset, Subset) else data.dataset
    if isinstance(source, ImageDataset):
        return source.name_of(index), source.why_unreadable(index) or "unreadable a moment ago"
    return f"image {index}", f"its label is {SKIPPED_LABEL}"
