"""From what the user calls data to batches in the form the model wants."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from tokenred.core.errors import ConfigError, DataError
from tokenred.data import ImageDataset, eval_transform, make_loader, open_dataset
from tokenred.data.cifar10 import CIFAR10_CLASSES
from tokenred.data.classes import ClassMap
from tokenred.data.hub import HubDataset

__all__ = ["Data", "batches", "open_for"]

Data = str | os.PathLike[str] | ImageDataset | HubDataset | DataLoader[Any]
_NAMED = ("digits", "cifar10")


class Digest(Protocol):
    """What hashlib's objects do."""

    def update(self, data: bytes, /) -> object:
        """Take in some bytes."""
        ...


def open_for(
    model: nn.Module,
    data: str | os.PathLike[str] | ImageDataset | HubDataset,
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
        text = os.fspath(data) if isinstance(data, (str, os.PathLike)) else ""
        named = text.partition(":")[0] in _NAMED
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
    share: tuple[int, int] = (0, 1),
    digest: Digest | None = None,
) -> tuple[Iterator[tuple[Tensor, Tensor, Tensor]], int | None]:
    """The batches (images, labels, indices), and how many images they hold (None: not known).

    Args:
        data: with a transform, or a loader.
        batch_size, workers: of the loading; a loader has its own.
        limit: at most so many images in all shares.
        seed: of the choice that ``limit`` makes.
        share: (rank, count): of the batches with numbers 0, 1, … only rank, rank + count, …
            A dataset loads no others; a loader is read to the end, since only it knows its order.
        digest: takes in the labels and indices of all batches that a loader gives.

    Raises:
        ConfigError: for numbers out of range, or a loader that is divided up already.
    """
    if isinstance(data, ImageDataset):
        loader = make_loader(data, batch_size, workers=workers, limit=limit, seed=seed)
        if share == (0, 1):
            return iter(loader), len(data) if limit is None else min(limit, len(data))
        return _own_batches(loader, share)
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ConfigError(f"expected limit as a whole number from 1, got {limit!r}.")
    rank, count = share
    if count > 1 and isinstance(getattr(data, "sampler", None), DistributedSampler):
        raise ConfigError(
            "expected a loader over all images, got one with a DistributedSampler, which gives "
            "some of them twice; leave the sampler out, the images are divided up here."
        )
    try:
        total: int | None = len(data.dataset)  # type: ignore[arg-type]
    except TypeError:  # an iterable dataset
        total = None
    known = min((n for n in (total, limit) if n is not None), default=None)
    own = None if known is None else known // count + (rank < known % count)
    return _from_loader(data, limit, share, digest), own


def _own_batches(
    loader: DataLoader[Any], share: tuple[int, int]
) -> tuple[Iterator[tuple[Tensor, Tensor, Tensor]], int]:
    rank, count = share
    own = list(loader.batch_sampler or ())[rank::count]
    mine: DataLoader[Any] = DataLoader(
        loader.dataset,
        batch_sampler=own,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        generator=loader.generator,
    )
    return iter(mine), sum(map(len, own))


def _from_loader(
    loader: DataLoader[Any], limit: int | None, share: tuple[int, int], digest: Digest | None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    seen = 0
    for number, batch in enumerate(loader):
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise DataError(
                "expected a loader of (images, labels) or (images, labels, indices), got "
                f"{type(batch).__name__}; write a collate_fn that gives one of these."
            )
        images, labels = batch[0], torch.as_tensor(batch[1])
        count = len(labels)
        indices = torch.as_tensor(batch[2] if len(batch) == 3 else torch.arange(seen, seen + count))
        left = count if limit is None else min(count, limit - seen)
        if digest is not None:
            digest.update(f"{labels.tolist()} {indices.tolist()}".encode())
        if number % share[1] == share[0]:
            yield images[:left], labels[:left], indices[:left]
        seen += count
        if limit is not None and seen >= limit:
            return
