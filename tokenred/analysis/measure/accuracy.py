"""Accuracy of models on labelled images, by one process or by several."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from tokenred.analysis.measure.inputs import (
    Batch,
    Data,
    batches,
    open_for,
    progress_bar,
    weight_type,
)
from tokenred.analysis.measure.machine import (
    base_of,
    channels_last,
    check_device,
    running,
    weights_digest,
)
from tokenred.analysis.measure.out_of_memory import Portions
from tokenred.analysis.measure.sharding import shards
from tokenred.core.errors import ConfigError, DataError, InputError
from tokenred.core.values import Count, Size, checked
from tokenred.data import SKIPPED_LABEL, ImageDataset
from tokenred.data.classes import ClassMap
from tokenred.reduced.model import ReducedViT

__all__ = ["Evaluation", "Kept", "Share", "evaluate", "evaluate_together"]

Opened = ImageDataset | DataLoader[Any]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model makes of labelled images; one entry an image that could be read.

    Attributes:
        index: ``(n,)`` positions of the images in the dataset.
        label, prediction: ``(n,)`` classes.
        rank: ``(n,)`` how many classes the model puts before the label; 0 is right. Of classes
            with equal logits the first one leads.
        classes: number of classes.
        skipped: name and reason of each image that could not be read; they are not counted.
        seconds: wall-clock time, loading included, of all models that were evaluated together; of
            several processes, the longest.
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


@dataclass
class Share:
    """What one process found.

    Attributes:
        rows: by model and number of the batch, rows ``(b, 4)`` of index, label, prediction, rank.
        classes: by model; 0 where it has seen no image.
        skipped: by number of the batch, name and reason of images that could not be read.
        seconds: wall-clock time.
        order: digest of the order in which a loader gave its images.
    """

    rows: dict[str, dict[int, Tensor]]
    classes: dict[str, int]
    skipped: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    seconds: float = 0.0
    order: str = ""

    @classmethod
    def of(cls, models: Mapping[str, nn.Module]) -> Share:
        """An empty one."""
        return cls({name: {} for name in models}, dict.fromkeys(models, 0))


class Kept(Protocol):
    """Batches that outlive an evaluation which is stopped."""

    def restore(self, share: Share) -> int:
        """Add them to a share; the number of the first one that is not among them."""
        ...

    def keep(self, number: int, share: Share) -> None:
        """Take in another one."""
        ...


@dataclass(frozen=True)
class _Options:
    batch_size: int
    workers: int
    limit: int | None
    device: str | torch.device | None
    amp: torch.dtype | None
    channels_last: bool
    shard: bool | None
    progress: bool
    seed: int


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
    """Accuracy of a model, in eval mode; afterwards the model is in the mode it was in.

    An image that cannot be read is left out and named in ``skipped``. A batch that does not fit
    into memory is redone in halves. Under ``torchrun`` each process takes its share of the batches
    and all of them return the same: what a single process returns.

    Args:
        model: dense or reduced; gives logits ``(b, classes)``.
        data: what `tokenred.data.open_dataset` takes (``"digits"``, a folder, a zip,
            ``"hf:NAME"`` …), an `ImageDataset`, or a loader of (images, labels) or (images, labels,
            indices). All but a loader get the model's own preprocessing.
        batch_size, workers: of the loading, in each process; a loader has its own.
        limit: at most so many images: a fixed, class-balanced choice; of a loader, the first.
        device: where to run; None for where the model is. With several processes, ``"cuda"`` means
            the GPU of each one's local rank.
        amp: ``torch.bfloat16`` or ``torch.float16`` for mixed precision.
        channels_last: keep images and convolutions' weights as NHWC in memory.
        shard: share the images with the other processes of ``torchrun`` or of an initialised
            ``torch.distributed``, all of which then make this call; None for where there are any,
            True to insist on them, False for this process alone.
        progress: show a bar on a terminal.
        split, class_map: see `tokenred.data.open_dataset`.
        seed: of the choice that ``limit`` makes.

    Raises:
        DataError: for data that is empty, unreadable, or of other classes than the model's; or
            that differs between processes.
        InputError: for logits of another shape, or NaN among them.
        ConfigError: for numbers out of range or an unknown device; or processes that differ in
            model or settings.
    """

    def opened() -> Opened:
        if isinstance(data, DataLoader):
            return data
        return open_for(base_of(model), data, split=split, class_map=class_map)

    options = _Options(
        batch_size, workers, limit, device, amp, channels_last, shard, progress, seed
    )
    return _evaluate({"": model}, opened, options)[""]


@checked
def evaluate_together(
    models: Mapping[str, nn.Module],
    data: ImageDataset | DataLoader[Any],
    *,
    batch_size: Size = 64,
    workers: Count = 0,
    limit: Size | None = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    channels_last: bool = False,
    shard: bool | None = None,
    progress: bool = True,
    seed: Count = 0,
    kept: Kept | None = None,
) -> dict[str, Evaluation]:
    """Several models on the same batches, so that images are decoded once.

    Args:
        models: by name, on the same device; all want the same preprocessing.
        data: with a transform, or a loader.
        batch_size, workers, limit, device, amp, channels_last, shard, progress, seed: as in
            `evaluate`.
        kept: batches that are done already, and where the others go. Several processes keep none.

    Raises:
        DataError, InputError, ConfigError: as `evaluate`.
    """
    if not models:
        raise ConfigError("expected at least one model to evaluate, got none.")
    options = _Options(
        batch_size, workers, limit, device, amp, channels_last, shard, progress, seed
    )
    return _evaluate(models, lambda: data, options, kept)


def _evaluate(
    models: Mapping[str, nn.Module],
    opened: Callable[[], Opened],
    options: _Options,
    kept: Kept | None = None,
) -> dict[str, Evaluation]:
    with shards(options.shard) as team:
        before, digest = Share.of(models), hashlib.sha256()
        kept = kept if team.count == 1 else None
        first = team.rank + (0 if kept is None else kept.restore(before))

        def prepare() -> tuple[Opened, Any, int | None, torch.device | None]:
            data, target = opened(), team.device(check_device(options.device))
            stream, total = batches(
                data,
                batch_size=options.batch_size,
                workers=options.workers,
                limit=options.limit,
                seed=options.seed,
                share=(first, team.count),
                digest=digest if team.count > 1 else None,
            )
            numbered = ((first + turn * team.count, batch) for turn, batch in enumerate(stream))
            return data, numbered, total, target

        data, numbered, total, target = team.local(prepare)
        if team.count > 1:
            team.agree(lambda: _identity(models, data, options))

        def work() -> Share:
            shown = options.progress and team.rank == 0
            title = "accuracy" if team.count == 1 else f"accuracy, 1 of {team.count} processes"
            keep = None if kept is None else kept.keep
            with progress_bar(total, title, "img", shown) as bar:
                found = _share(models, data, numbered, target, options, bar.update, keep)
            found.order = digest.hexdigest()
            return found

        found = team.gather(work)
        if len({share.order for share in found}) > 1:
            raise DataError(
                f"expected the same batches in all {team.count} processes, got different labels or "
                "indices from their loaders; do not shuffle, or seed the loaders alike."
            )
    return {name: _merged(name, [*found, before]) for name in models}


def _share(
    models: Mapping[str, nn.Module],
    data: Opened,
    numbered: Iterable[tuple[int, Batch]],
    target: torch.device | None,
    options: _Options,
    progressed: Callable[[int], object],
    keep: Callable[[int, Share], None] | None,
) -> Share:
    """Run all models on the batches of one process."""
    found, start = Share.of(models), time.perf_counter()
    portions = {name: Portions() for name in models}
    with (
        channels_last(models.values(), options.channels_last),
        running(models.values(), target, amp=options.amp) as place,
    ):
        for number, (images, labels, indices) in numbered:
            good = labels != SKIPPED_LABEL
            if not good.all():
                found.skipped[number] = [_why(data, i) for i in indices[~good].tolist()]
                images, labels, indices = images[good], labels[good], indices[good]
            for name, model in models.items() if len(labels) else ():
                run = _runner(model, place, options.channels_last)
                logits = portions[name](run, images)
                found.classes[name] = _check_labels(labels, logits.shape[1])
                found.rows[name][number] = _ranked(logits, labels, indices)
            if keep is not None:
                keep(number, found)
            progressed(len(good))
    found.seconds = time.perf_counter() - start
    return found


def _runner(model: nn.Module, place: torch.device, nhwc: bool) -> Callable[[Tensor], Tensor]:
    """From images on the CPU to logits on the CPU."""
    dtype = weight_type(model)

    def run(images: Tensor) -> Tensor:
        images = images.to(place, non_blocking=True).to(dtype)
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
                "expected numbers from the model, got NaN; check its weights, and the precision."
            )
        return logits

    return run


def _check_labels(labels: Tensor, classes: int) -> int:
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise DataError(
            f"expected labels from 0 to {classes - 1}, as the model has {classes} classes, got "
            f"{int(labels.min())} to {int(labels.max())}; check labels and model."
        )
    return classes


def _ranked(logits: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
    """Rows ``(b, 4)`` of index, label, prediction, rank; of equal logits the first class leads."""
    own = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1]) < labels[:, None]
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


def _merged(model: str, found: list[Share]) -> Evaluation:
    """All shares of a model in the order of a single process."""
    bad = {number: names for share in found for number, names in share.skipped.items()}
    skipped = tuple(name for number in sorted(bad) for name in bad[number])
    rows = {number: part for share in found for number, part in share.rows[model].items()}
    if not rows:
        first = f"; the first: {skipped[0][0]} ({skipped[0][1]})" if skipped else ""
        raise DataError(
            f"expected images to evaluate on, got none, and {len(skipped)} that cannot be "
            f"read{first}. Check the data."
        )
    ordered = torch.cat([rows[number] for number in sorted(rows)])
    index, label, prediction, rank = ordered.T.contiguous().numpy()
    classes = max(share.classes[model] for share in found)
    seconds = max(share.seconds for share in found)
    return Evaluation(index, label, prediction, rank, classes, skipped, seconds)


def _identity(
    models: Mapping[str, nn.Module], data: Opened, options: _Options
) -> dict[str, object]:
    """What several processes must have in common, in few words."""
    bases = {id(base_of(model)): base_of(model) for model in models.values()}
    learned = [model.parts for model in models.values() if "parts" in model._modules]
    told: dict[str, object] = {
        "models": {name: _kind(model) for name, model in models.items()},
        "weights": [weights_digest(part) for part in (*bases.values(), *learned)],  # type: ignore[arg-type]
    }
    if isinstance(data, ImageDataset):
        names = hashlib.sha256()
        for index, label in enumerate(data.labels):
            names.update(f"{data.name_of(index)}:{label}\n".encode())
        told["data"] = f"{data.name}, {len(data)} images ({names.hexdigest()[:8]})"
    # Loading and looks are each process's own affair; device and workers may differ.
    for name in ("batch_size", "limit", "seed", "amp", "channels_last"):
        told[name] = getattr(options, name)
    return told


def _kind(model: nn.Module) -> str:
    name = type(model).__name__
    if isinstance(model, ReducedViT):
        return f"{name} of {model.cost().gmacs} GMACs, {model.strategy!r}"
    return name
