"""From what the user calls data to batches in the form the model wants."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tokenred.core.errors import ConfigError, DataError
from tokenred.data import ImageDataset, eval_transform, make_loader, open_dataset
from tokenred.data.cifar10 import CIFAR10_CLASSES
from tokenred.data.class_map import ClassMap

__all__ = ["Data", "batches", "open_for"]

Data = str | os.PathLike[str] | ImageDataset | DataLoader[Any]
_NAMED = ("digits", "cifar10")


def open_for(
    model: nn.Module,
    data: str | os.PathLike[str] | ImageDataset,
    *,
    split: str | None = None,
    class_map: ClassMap = None,
) -> ImageDataset:
    """A dataset with the model's own preprocessing.

    Args:
        model: says what it wants in its ``pretrained_cfg``.
        data: what `tokenred.data.open_dataset` takes; or a dataset, whose transform is kept
            where it has one.
        split, class_map: see `tokenred.data.open_dataset`. Without a ``class_map``, folders must
            be as many as the model has classes, or ImageNet's WNIDs for one of 1000.

    Raises:
        DataError: for a source that is not there or empty, or labels that the model cannot give.
    """
    classes = getattr(model, "num_classes", None)
    if isinstance(data, ImageDataset):
        dataset = copy.copy(data)
    else:
        if class_map is None and isinstance(classes, int) and classes > 0:
            class_map = classes
        dataset = open_dataset(data, split=split, class_map=class_map)
        named = str(data).partition(":")[0] in _NAMED
        if named and classes not in (None, len(dataset.classes)):
            raise DataError(
                f"expected data of {classes} classes, as the model has, got {dataset.name} with "
                f"{len(dataset.classes)}; choose a model that was trained for it."
            )
    if isinstance(classes, int) and max(dataset.labels) >= classes:
        raise DataError(
            f"expected labels below {classes}, the number of the model's classes, got "
            f"{max(dataset.labels)} in {dataset.name}; pass class_map=, or another model."
        )
    if dataset.transform is None:
        kind = "cifar10" if dataset.classes == CIFAR10_CLASSES else None
        dataset.transform = eval_transform(model, data=kind)
    return dataset


def batches(
    data: ImageDataset | DataLoader[Any],
    *,
    batch_size: int,
    workers: int,
    limit: int | None,
    seed: int,
) -> tuple[Iterator[tuple[Tensor, Tensor, Tensor]], int | None]:
    """The batches (images, labels, indices), and how many images they hold (None: not known).

    Raises:
        ConfigError: for numbers out of range.
    """
    if isinstance(data, ImageDataset):
        loader = make_loader(data, batch_size, workers=workers, limit=limit, seed=seed)
        return iter(loader), len(data) if limit is None else min(limit, len(data))
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ConfigError(f"expected limit as a whole number from 1, got {limit!r}.")
    try:
        total: int | None = len(data.dataset)  # type: ignore[arg-type]
    except TypeError:  # an iterable dataset
        total = None
    known = [count for count in (total, limit) if count is not None]
    return _from_loader(data, limit), min(known, default=None)


def _from_loader(
    loader: DataLoader[Any], limit: int | None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    seen = 0
    for batch in loader:
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise DataError(
                "expected a loader of (images, labels) or (images, labels, indices), got "
                f"{type(batch).__name__}; write a collate_fn that gives one of these."
            )
        images, labels = batch[0], torch.as_tensor(batch[1])
        count = len(labels)
        indices = batch[2] if len(batch) == 3 else torch.arange(seen, seen + count)
        left = count if limit is None else min(count, limit - seen)
        yield images[:left], labels[:left], torch.as_tensor(indices)[:left]
        seen += count
        if limit is not None and seen >= limit:
            return
