"""From the user's data to batches with the model's preprocessing."""

import copy
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from tokenred.analysis.measure.machine import base_of, running
from tokenred.core.errors import DataError
from tokenred.core.progress import progress_bar
from tokenred.core.values import Count, Size, checked
from tokenred.data import SKIPPED_LABEL, ImageDataset, eval_transform, make_loader, open_dataset
from tokenred.data.classes import CIFAR10_CLASSES, ClassMap

Data = str | os.PathLike[str] | ImageDataset | DataLoader[Any]
Batch = tuple[Tensor, Tensor, Tensor]
"""Images, labels and indices."""


class Reading(NamedTuple):
    """Data as models run on it.

    Attributes:
        name: of the data, if it has one.
        device: where the models are.
        batches: without the unreadable images; a DataError ends them if no image could be read.
        skipped: name and reason of each unreadable image so far.
    """

    name: str
    device: torch.device
    batches: Iterator[Batch]
    skipped: list[tuple[str, str]]


_NAMED = ("digits", "cifar10")


def open_for(
    model: nn.Module,
    data: str | os.PathLike[str] | ImageDataset,
    *,
    split: str | None = None,
    class_map: ClassMap = None,
) -> ImageDataset:
    """A dataset with the model's own preprocessing, unless it has its own.

    Without a ``class_map``, there must be as many folders as the model has classes, or folders
    named by ImageNet's WNIDs for a model with 1000.

    Raises:
        DataError: if the source is missing or empty, or labels exceed the model's classes.
    """
    classes = getattr(model, "num_classes", None)
    if isinstance(data, ImageDataset):
        dataset = copy.copy(data)
    else:
        if class_map is None and isinstance(classes, int) and classes > 0:
            class_map = classes
        dataset = open_dataset(data, split=split, class_map=class_map)
        named = os.fspath(data).partition(":")[0] in _NAMED
        if named and classes not in (None, len(dataset.classes)):
            raise DataError(
                f"expected data with {classes} classes, like the model, got {dataset.name} with "
                f"{len(dataset.classes)}; choose a model that was trained for it."
            )
    if isinstance(classes, int) and 0 < classes <= max(dataset.labels):
        raise DataError(
            f"expected labels below {classes}, the number of the model's classes, got "
            f"{max(dataset.labels)} in {dataset.name}; pass class_map=, or another model."
        )
    if dataset.transform is None:
        kind = "cifar10" if dataset.classes == CIFAR10_CLASSES else None
        dataset.transform = eval_transform(model, data=kind)
    return dataset


@checked
def batches(
    data: ImageDataset | DataLoader[Any],
    *,
    batch_size: Size = 64,
    workers: Count = 0,
    limit: Size | None = None,
    seed: Count = 0,
) -> tuple[Iterator[Batch], int | None]:
    """The batches (images, labels, indices), and the number of images (None if unknown)."""
    if isinstance(data, ImageDataset):
        loader = make_loader(data, batch_size, workers=workers, limit=limit, seed=seed)
        return iter(loader), len(loader.dataset)  # type: ignore[arg-type]
    try:
        total: int | None = len(data.dataset)  # type: ignore[arg-type]
    except TypeError:  # an iterable dataset
        total = None
    known = min((n for n in (total, limit) if n is not None), default=None)
    return _from_loader(data, limit), known


def _from_loader(loader: DataLoader[Any], limit: int | None) -> Iterator[Batch]:
    seen = 0
    for batch in loader:
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise DataError(
                "expected a loader of (images, labels) or (images, labels, indices), got "
                f"{type(batch).__name__}; write a collate_fn that returns one of these."
            )
        images, labels = batch[0], torch.as_tensor(batch[1])
        count = len(labels)
        indices = torch.as_tensor(batch[2] if len(batch) == 3 else torch.arange(seen, seen + count))
        left = count if limit is None else min(count, limit - seen)
        yield images[:left], labels[:left], indices[:left]
        seen += count
        if limit is not None and seen >= limit:
            return


@contextmanager
def reading(
    models: Iterable[nn.Module],
    data: Data,
    title: str,
    *,
    split: str | None = None,
    class_map: ClassMap = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    progress: bool = True,
    **loading: Any,
) -> Iterator[Reading]:
    """Run models on data, with a progress bar; the arguments are those of `evaluate`."""
    models = list(models)
    if not isinstance(data, DataLoader):
        data = open_for(base_of(models[0]), data, split=split, class_map=class_map)
    source, total = batches(data, **loading)
    skipped: list[tuple[str, str]] = []

    def readable() -> Iterator[Batch]:
        seen = 0
        for images, labels, indices in source:
            good = labels != SKIPPED_LABEL
            skipped.extend(_why(data, index) for index in indices[~good].tolist())
            if good.all() and len(good):  # pinned memory stays pinned
                yield images, labels, indices
            elif good.any():
                yield images[good], labels[good], indices[good]
            seen += int(good.sum())
            bar.update(len(labels))
        if not seen:
            first = f"; the first: {skipped[0][0]} ({skipped[0][1]})" if skipped else ""
            raise DataError(
                f"expected images to measure on, got none, and {len(skipped)} that cannot be "
                f"read{first}. Check the data."
            )

    with (
        running(models, device, amp=amp) as place,
        progress_bar(total, title, "images", progress, leave=False) as bar,
    ):
        yield Reading(getattr(data, "name", ""), place, readable(), skipped)


def _why(data: Data, index: int) -> tuple[str, str]:
    """Name and reason of an image that could not be read."""
    source: Any = data
    if isinstance(data, DataLoader):
        source = data.dataset.dataset if isinstance(data.dataset, Subset) else data.dataset
    if isinstance(source, ImageDataset):
        return source.name_of(index), source.why_unreadable(index) or "unreadable a moment ago"
    return f"image {index}", f"its label is {SKIPPED_LABEL}"


def shown_pixels(image: Tensor, transform: Any) -> NDArray[np.float32]:
    """A transformed image ``(3, H, W)`` as pixels ``(H, W, 3)`` from 0 to 1.

    The last step of the transform with ``mean`` and ``std`` is undone; size and crop are kept.
    """
    image = image.float().cpu()
    for step in reversed(getattr(transform, "transforms", [])):
        if hasattr(step, "mean") and hasattr(step, "std"):
            mean, std = (torch.as_tensor(v, dtype=torch.float32) for v in (step.mean, step.std))
            image = image * std.view(-1, 1, 1) + mean.view(-1, 1, 1)
            break
    pixels: NDArray[np.float32] = image.clamp(0, 1).permute(1, 2, 0).numpy()
    return pixels
