"""Accuracy of models on labelled images."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tokenred.analysis.measure.inputs import Data, reading
from tokenred.analysis.measure.machine import Portions, weight_type
from tokenred.analysis.measure.machine import channels_last as weights_last
from tokenred.analysis.study.rows import Predictions
from tokenred.core.errors import ConfigError, DataError, InputError, shown
from tokenred.core.values import Count, Size, checked
from tokenred.data.classes import ClassMap
from tokenred.reduced.model import ReducedViT


@dataclass(frozen=True, eq=False)
class Evaluation(Predictions):
    """The predictions of a model on labelled images; one entry per readable image.

    Attributes:
        classes: number of classes.
        skipped: name and reason of each unreadable image; these are not counted.
        seconds: wall-clock time, loading included, of all models evaluated together.
    """

    classes: int
    skipped: tuple[tuple[str, str], ...]
    seconds: float

    @property
    def count(self) -> int:
        """Images counted."""
        return len(self.label)

    @property
    def top1(self) -> float:
        """Top-1 accuracy in percent."""
        return self.topk(1)

    @property
    def top5(self) -> float | None:
        """Top-5 accuracy in percent; None for fewer than 5 classes, where it would be 100."""
        return self.topk(5) if self.classes >= 5 else None

    def topk(self, k: int) -> float:
        """Percent of images whose label is among the first ``k`` classes.

        Raises:
            ConfigError: if k is not between 1 and the number of classes.
        """
        if not 1 <= k <= self.classes:
            raise ConfigError(f"expected k between 1 and {self.classes} classes, got {shown(k)}.")
        return 100 * int((self.rank < k).sum()) / len(self.rank)  # 63.75, not 63.7499…

    def __repr__(self) -> str:
        top5 = "" if self.top5 is None else f"top5={self.top5:.2f}, "
        return (
            f"Evaluation(top1={self.top1:.2f}, {top5}count={self.count}, "
            f"skipped={len(self.skipped)}, seconds={self.seconds:.1f})"
        )


@checked
def evaluate(
    model: nn.Module,
    data: Data,
    *,
    batch_size: Size = 64,
    workers: Count = 0,
    limit: Size | None = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    channels_last: bool = False,
    progress: bool = True,
    split: str | None = None,
    class_map: ClassMap = None,
    seed: Count = 0,
) -> Evaluation:
    """Measure the accuracy of a model in eval mode, and restore its mode afterwards.

    An unreadable image is skipped and listed in ``skipped``. A batch that does not fit into memory
    is repeated in halves.

    Args:
        model: dense or reduced; gives logits ``(b, classes)``.
        data: anything that `tokenred.data.open_dataset` accepts (``"digits"``, a folder, a zip,
            …), an `ImageDataset`, or a loader of (images, labels) or (images, labels,
            indices). All except a loader use the model's own preprocessing.
        batch_size: images in a batch; a loader has its own.
        workers: processes that load images; a loader has its own.
        limit: maximum number of images: a fixed, class-balanced subset, or the first images of a
            loader.
        device: where to run, such as cuda; None for the model's device.
        amp: ``torch.bfloat16`` or ``torch.float16`` for mixed precision.
        channels_last: store images and convolution weights as NHWC.
        progress: show progress on standard error.
        split, class_map: see `tokenred.data.open_dataset`.
        seed: seed of the subset that ``limit`` chooses.

    Raises:
        DataError: if the data is empty, unreadable, or has other classes than the model.
        InputError: if the logits have another shape or contain NaN.
        ConfigError: if a number is out of range, or the device is unknown.
    """
    return evaluate_together(
        {"": model}, data, batch_size=batch_size, workers=workers, limit=limit, device=device,
        amp=amp, channels_last=channels_last, progress=progress, split=split, class_map=class_map,
        seed=seed,
    )[""]  # fmt: skip


@checked
def evaluate_together(
    models: Mapping[str, nn.Module], data: Data, *, channels_last: bool = False, **options: Any
) -> dict[str, Evaluation]:
    """Evaluate several models on the same batches, so that images are decoded once.

    Args:
        models: by name, on the same device; all must use the same preprocessing.
        data, channels_last, options: as in `evaluate`.

    Raises:
        DataError, InputError, ConfigError: as `evaluate`.
    """
    if not models:
        raise ConfigError("expected at least one model to evaluate, got none.")
    if wrong := [each for each in models.values() if not isinstance(each, nn.Module)]:
        raise ConfigError(f"expected a model, got {shown(wrong[0])}; load it by load_model.")
    rows: dict[str, list[Tensor]] = {name: [] for name in models}
    classes = dict.fromkeys(models, 0)
    start = time.perf_counter()
    with (
        weights_last(models.values(), channels_last),
        _checking(models.values()),
        reading(models.values(), data, "accuracy", **options) as read,
    ):
        runs = {
            name: partial(Portions(), partial(_logits, model, read.device, channels_last))
            for name, model in models.items()
        }
        for images, labels, indices in read.batches:
            for name, run in runs.items():
                logits = run(images)
                classes[name] = logits.shape[1]
                rows[name].append(_ranked(logits, labels, indices))
    seconds = time.perf_counter() - start
    found = {}
    for name, own in rows.items():
        index, label, prediction, rank = torch.cat(own).T.contiguous().numpy()
        found[name] = Evaluation(
            index, label, prediction, rank, classes[name], tuple(read.skipped), seconds
        )
    return found


@contextmanager
def _checking(models: Iterable[nn.Module]) -> Iterator[None]:
    """Refuse NaN scores, which would rank tokens without a word (see ``check`` of `wrap`)."""
    own = [m for m in models if isinstance(m, ReducedViT) and not m.check]
    own = [m for m in own if m._compiled_call_impl is None]
    for model in own:
        model.check = True
    try:
        yield
    finally:
        for model in own:
            model.check = False


def _logits(model: nn.Module, place: torch.device, nhwc: bool, images: Tensor) -> Tensor:
    """From images on the CPU to logits on the CPU."""
    images = images.to(place, non_blocking=True).to(weight_type(model))
    if nhwc and images.ndim == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    logits = model(images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"expected logits ({len(images)}, classes) from the model, got {got}; "
            "evaluate a classifier, with one head."
        )
    logits = logits.cpu().float()
    if torch.isnan(logits).any():
        raise InputError(
            "expected finite logits, got NaN; check the model's weights and the precision."
        )
    return logits


def _ranked(logits: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
    """Rows ``(b, 4)`` of index, label, prediction, rank; of equal logits the first class leads."""
    classes = logits.shape[1]
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise DataError(
            f"expected labels from 0 to {classes - 1}, as the model has {classes} classes, got "
            f"{int(labels.min())} to {int(labels.max())}; check labels and model."
        )
    own = logits.gather(1, labels[:, None])
    before = torch.arange(classes) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & before)).sum(dim=1)
    prediction = torch.where(rank == 0, labels, logits.argmax(dim=1))
    return torch.stack((indices.long(), labels.long(), prediction, rank), dim=1)
