"""Loading in batches, the same every time, and small fair parts of a dataset."""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from tokenred.core.values import Count, Size, checked
from tokenred.data.dataset import ImageDataset

__all__ = ["balanced_subset", "make_loader"]


@checked
def make_loader(
    dataset: ImageDataset,
    batch_size: Size,
    workers: Count = 0,
    limit: Size | None = None,
    seed: Count = 0,
) -> DataLoader[tuple[Tensor, int, int]]:
    """Make a loader that gives the same batches in the same order every time.

    Args:
        dataset: with a transform that gives all images one shape.
        batch_size: images in a batch; the last one may be smaller.
        workers: processes that load; 0 loads in this one.
        limit: at most so many images, chosen by ``balanced_subset``; None for all.
        seed: of the choice.

    Returns:
        A loader of (images (b, 3, height, width), labels (b,), indices (b,)); the indices are
        those of ``dataset``, and a label of -1 marks an unreadable image.

    Raises:
        ConfigError: if a number is too small or no whole number.
    """
    chosen: Dataset[tuple[Tensor, int, int]] = dataset
    if limit is not None:
        chosen = Subset(dataset, balanced_subset(dataset, limit, seed))
    return DataLoader(
        chosen,
        batch_size=batch_size,
        shuffle=False,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        # Of its own, so that iterating leaves the caller's random numbers alone.
        generator=torch.Generator().manual_seed(seed),
    )


@checked
def balanced_subset(dataset: ImageDataset, limit: Size, seed: Count = 0) -> list[int]:
    """Choose a fixed random part with the classes as even as they can be.

    The choice depends on the images' names and the seed alone, not on their order, and the part
    for a smaller limit lies inside the part for a bigger one.

    Args:
        dataset: to choose from.
        limit: how many; all if there are fewer.
        seed: another one chooses other images.

    Returns:
        The indices, ascending.

    Raises:
        ConfigError: if ``limit`` or ``seed`` is too small or no whole number.
    """
    if limit >= len(dataset):
        return list(range(len(dataset)))
    shuffled = sorted(range(len(dataset)), key=lambda i: _draw(seed, dataset.name_of(i)))
    seen: dict[int, int] = {}
    ranked = []
    for index in shuffled:
        label = dataset.labels[index]
        rank = seen.get(label, 0)
        seen[label] = rank + 1
        # One of each class, then a second of each, and so on.
        ranked.append((rank, _draw(seed, f"class {label}"), index))
    return sorted(index for _, _, index in sorted(ranked)[:limit])


def _draw(seed: int, name: str) -> bytes:
    # The names of files need not be UTF-8.
    return blake2b(f"{seed}:{name}".encode(errors="surrogatepass"), digest_size=8).digest()
