"""Deterministic loading in batches, and balanced subsets of a dataset."""

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
    """Create a loader that gives the same batches in the same order every time.

    Args:
        dataset: its transform must give all images the same shape.
        batch_size: images in a batch; the last one may be smaller.
        workers: number of loading processes; 0 loads in this process.
        limit: maximum number of images, chosen by ``balanced_subset``; None for all.
        seed: of the choice.

    Returns:
        A loader of (images (b, 3, height, width), labels (b,), indices (b,)); the indices are
        those of ``dataset``, and a label of -1 marks an unreadable image.

    Raises:
        ConfigError: if a number is too small or not an integer.
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
        # A separate generator, so that iterating does not change the caller's random state.
        generator=torch.Generator().manual_seed(seed),
    )


@checked
def balanced_subset(dataset: ImageDataset, limit: Size, seed: Count = 0) -> list[int]:
    """Choose a fixed random subset, as balanced over the classes as possible.

    The choice depends only on the names of the images and the seed, not on their order, and the
    subset for a smaller limit is contained in the subset for a larger one.

    Args:
        dataset: to choose from.
        limit: how many; all if there are fewer.
        seed: another one chooses other images.

    Returns:
        The indices, ascending.

    Raises:
        ConfigError: if ``limit`` or ``seed`` is too small or not an integer.
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
