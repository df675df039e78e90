"""Accuracy of models on labelled images, by one process or by several."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from tokenred.analysis.measure.inputs import Batch, Data, batches, open_for, progress_bar, readable
from tokenred.analysis.measure.machine import (
    Portions,
    base_of,
    check_device,
    running,
    weight_type,
    weights_digest,
)
from tokenred.analysis.measure.machine import channels_last as weights_last
from tokenred.analysis.measure.sharding import shards
from tokenred.core.errors import ConfigError, DataError, InputError
from tokenred.core.values import Count, Size, checked
from tokenred.data import SKIPPED_LABEL, ImageDataset
from tokenred.data.classes import ClassMap
from tokenred.reduced.model import ReducedViT

Opened = ImageDataset | DataLoader[Any]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The predictions of a model on labelled images; one entry per readable image.

    Attributes:
        index: ``(n,)`` positions of the images in the dataset.
        label, prediction: ``(n,)`` classes.
        rank: ``(n,)`` number of classes that the model ranks above the label; 0 is correct. Of
            classes with equal logits, the first ranks higher.
        classes: number of classes.
        skipped: name and reason of each unreadable image; these are not counted.
        seconds: wall-clock time, loading included, of all models evaluated together; the maximum
            over processes.
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
        """``(n,)`` whether each prediction is correct."""
        return np.equal(self.rank, 0)

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
            raise ConfigError(f"expected k between 1 and {self.classes} classes, got {k!r}.")
        return 100.0 * float((self.rank < k).mean())

    def __repr__(self) -> str:
        top5 = "" if self.top5 is None else f"top5={self.top5:.2f}, "
        return (
            f"Evaluation(top1={self.top1:.2f}, {top5}count={self.count}, "
            f"skipped={len(self.skipped)}, seconds={self.seconds:.1f})"
        )


@dataclass
class _Share:
    """What one process found, batch by batch."""

    rows: dict[str, list[Tensor | None]]  # by model, see `_ranked`; None of a batch of no image
    skipped: list[list[tuple[str, str]]]
    classes: dict[str, int]  # by model; 0 if it has seen no image
    seconds: float = 0.0
    order: str = ""  # digest of the order of a loader's images


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
    shard: bool | None = None,
    progress: bool = True,
    split: str | None = None,
    class_map: ClassMap = None,
    seed: Count = 0,
) -> Evaluation:
    """Measure the accuracy of a model in eval mode, and restore its mode afterwards.

    An unreadable image is skipped and listed in ``skipped``. A batch that does not fit into memory
    is repeated in halves. Under ``torchrun`` each process takes its share of the batches, and all
    of them return the same result as a single process.

    Args:
        model: dense or reduced; gives logits ``(b, classes)``.
        data: anything that `tokenred.data.open_dataset` accepts (``"digits"``, a folder, a zip,
            ``"hf:NAME"`` …), an `ImageDataset`, or a loader of (images, labels) or (images, labels,
            indices). All except a loader use the model's own preprocessing.
        batch_size, workers: for loading, per process; a loader has its own.
        limit: maximum number of images: a fixed, class-balanced subset, or the first images of a
            loader.
        device: where to run; None for the model's device. With several processes, ``"cuda"`` means
            the GPU of the local rank.
        amp: ``torch.bfloat16`` or ``torch.float16`` for mixed precision.
        channels_last: store images and convolution weights as NHWC.
        shard: share the images with the other processes of ``torchrun`` or of an initialised
            ``torch.distributed``, all of which must make this call; None if there are any, True to
            require them, False for this process alone.
        progress: show a bar on a terminal.
        split, class_map: see `tokenred.data.open_dataset`.
        seed: seed of the subset that ``limit`` chooses.

    Raises:
        DataError: if the data is empty, unreadable, has other classes than the model, or differs
            between processes.
        InputError: if the logits have another shape or contain NaN.
        ConfigError: if a number is out of range, the device is unknown, or processes differ in
            model or settings.
    """
    return evaluate_together(
        {"": model}, data, batch_size=batch_size, workers=workers, limit=limit, device=device,
        amp=amp, channels_last=channels_last, shard=shard, progress=progress, split=split,
        class_map=class_map, seed=seed,
    )[""]  # fmt: skip


@checked
def evaluate_together(
    models: Mapping[str, nn.Module],
    data: Data,
    *,
    batch_size: Size = 64,
    workers: Count = 0,
    limit: Size | None = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    channels_last: bool = False,
    shard: bool | None = None,
    progress: bool = True,
    split: str | None = None,
    class_map: ClassMap = None,
    seed: Count = 0,
) -> dict[str, Evaluation]:
    """Evaluate several models on the same batches, so that images are decoded once.

    Args:
        models: by name, on the same device; all must use the same preprocessing.
        data: as in `evaluate`.
        batch_size, workers, limit, device, amp, channels_last: as in `evaluate`.
        shard, progress, split, class_map, seed: as in `evaluate`.

    Raises:
        DataError, InputError, ConfigError: as `evaluate`.
    """
    if not models:
        raise ConfigError("expected at least one model to evaluate, got none.")
    loading = {"batch_size": batch_size, "limit": limit, "seed": seed}
    with shards(shard) as team:
        digest = hashlib.sha256()

        def prepare() -> tuple[Opened, torch.device | None, Iterator[Batch], int | None]:
            opened: Opened
            if isinstance(data, DataLoader):
                opened = data
            else:
                base = base_of(next(iter(models.values())))
                opened = open_for(base, data, split=split, class_map=class_map)
            target = team.device(check_device(device))
            share, note = (team.rank, team.count), digest.update if team.count > 1 else None
            stream = batches(opened, workers=workers, share=share, note=note, **loading)  # type: ignore[arg-type]
            return opened, target, *stream

        opened, target, stream, total = team.local(prepare)
        # Each process may load and display in its own way, on its own device.
        same = {"amp": amp, "channels_last": channels_last, **loading}
        if team.count > 1:
            team.agree(lambda: _identity(models, opened) | same)

        def work() -> _Share:
            start = time.perf_counter()
            found = _Share({name: [] for name in models}, [], dict.fromkeys(models, 0))
            title = "accuracy" if team.count == 1 else f"accuracy, 1 of {team.count} processes"
            with (
                weights_last(models.values(), channels_last),
                running(models.values(), target, amp=amp) as place,
                progress_bar(total, title, "img", progress and team.rank == 0) as bar,
            ):
                runs = {
                    name: partial(Portions(), partial(_logits, model, place, channels_last))
                    for name, model in models.items()
                }
                for (images, labels, indices), bad in readable(stream):
                    for name, run in runs.items():
                        rows = None
                        if len(labels):
                            logits = run(images)
                            found.classes[name] = logits.shape[1]
                            rows = _ranked(logits, labels, indices)
                        found.rows[name].append(rows)
                    found.skipped.append([_why(opened, index) for index in bad])
                    bar.update(len(labels) + len(bad))
            found.seconds, found.order = time.perf_counter() - start, digest.hexdigest()
            return found

        found = team.gather(work)
        if len({share.order for share in found}) > 1:
            raise DataError(
                f"expected the same batches in all {team.count} processes, got different labels or "
                "indices from their loaders; do not shuffle, or use the same seed in all loaders."
            )
    return {name: _merged(name, found) for name in models}


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


def _why(data: Opened, index: int) -> tuple[str, str]:
    """Name and reason of an image that could not be read."""
    source: Any = data
    if isinstance(data, DataLoader):
        source = data.dataset.dataset if isinstance(data.dataset, Subset) else data.dataset
    if isinstance(source, ImageDataset):
        return source.name_of(index), source.why_unreadable(index) or "unreadable a moment ago"
    return f"image {index}", f"its label is {SKIPPED_LABEL}"


def _merged(model: str, found: list[_Share]) -> Evaluation:
    """All shares of a model in the order of a single process: batches were dealt in turn."""
    dealt = zip_longest(*(share.skipped for share in found), fillvalue=[])
    skipped = tuple(image for turn in dealt for batch in turn for image in batch)
    turns = zip_longest(*(share.rows[model] for share in found))
    rows = [batch for turn in turns for batch in turn if batch is not None]
    if not rows:
        first = f"; the first: {skipped[0][0]} ({skipped[0][1]})" if skipped else ""
        raise DataError(
            f"expected images to evaluate on, got none, and {len(skipped)} that cannot be "
            f"read{first}. Check the data."
        )
    index, label, prediction, rank = torch.cat(rows).T.contiguous().numpy()
    classes = max(share.classes[model] for share in found)
    seconds = max(share.seconds for share in found)
    return Evaluation(index, label, prediction, rank, classes, skipped, seconds)


def _identity(models: Mapping[str, nn.Module], data: Opened) -> dict[str, object]:
    """The models and images that several processes must share, in short form."""
    bases = {id(base_of(model)): base_of(model) for model in models.values()}
    learned = [model.parts for model in models.values() if "parts" in model._modules]
    kinds = {name: _kind(model) for name, model in models.items()}
    weights = [weights_digest(part) for part in (*bases.values(), *learned)]  # type: ignore[arg-type]
    told: dict[str, object] = {"models": kinds, "weights": weights}
    if isinstance(data, ImageDataset):
        names = hashlib.sha256()
        for index, label in enumerate(data.labels):
            names.update(f"{data.name_of(index)}:{label}\n".encode())
        told["data"] = f"{data.name}, {len(data)} images ({names.hexdigest()[:8]})"
    return told


def _kind(model: nn.Module) -> str:
    name = type(model).__name__
    if not isinstance(model, ReducedViT):
        return name
    return f"{name} of {model.cost().gmacs} GMACs, {model.strategy!r}"
