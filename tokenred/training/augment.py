"""Training images: timm's augmentation around the model's own preprocessing, and their batches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from tokenred.core.errors import DataError
from tokenred.data import SKIPPED_LABEL, ImageDataset, eval_transform
from tokenred.data.cifar10 import CIFAR10_CLASSES
from tokenred.training.randomness import derive, random_as
from tokenred.training.settings import Settings

__all__ = ["TrainingImages", "open_training", "readable", "train_loader", "train_transform"]

_FIRST_CROPS = 1  # timm's random resized crop is one transform, and the first


def train_transform(
    model: nn.Module, settings: Settings, data: str | None = None
) -> Callable[[Image.Image], Tensor]:
    """Augmentation, then the normalisation that the model's evaluation has.

    Args:
        model: as for `tokenred.data.eval_transform`.
        settings: the augmentation.
        data: the dataset's name; see there.

    Returns:
        From an RGB image to a tensor (3, height, width).
    """
    evaluation: Any = eval_transform(model, data=data)
    normalise = next(t for t in evaluation.transforms if isinstance(t, transforms.Normalize))
    config = resolve_model_data_config(model)
    size = tuple(getattr(getattr(model, "patch_embed", None), "img_size", None) or ())
    height, width = size or config["input_size"][1:]
    made = create_transform(
        (3, height, width),
        is_training=True,
        hflip=settings.flip,
        color_jitter=settings.color_jitter,
        auto_augment=settings.auto_augment,
        interpolation=config["interpolation"],
        mean=tuple(map(float, normalise.mean)),
        std=tuple(map(float, normalise.std)),
        re_prob=settings.erasing,
        re_mode="pixel",
    )
    if settings.crop == "resized":
        return made  # type: ignore[no-any-return]
    first: list[Any] = []
    if settings.crop == "padded":
        first = [transforms.RandomCrop((height, width), padding=max(1, height // 8))]
    elif settings.crop == "affine":
        # As the embedded digits model was trained, see digits_augment.
        moves = transforms.RandomAffine(
            12, (0.09, 0.09), (0.86, 1.14), 10, transforms.InterpolationMode.BILINEAR
        )
        first = [moves]
    # Images of another size are brought to the model's first, as in evaluation.
    resize = evaluation.transforms[:-2]
    return transforms.Compose([*resize, *first, *made.transforms[_FIRST_CROPS:]])  # type: ignore[no-any-return]


class TrainingImages(Dataset[tuple[Tensor, int, int]]):
    """Augmented images whose randomness hangs on seed, epoch and image, not on who loads them.

    Args:
        images: with a training transform.
        seed: of the augmentation.
    """

    def __init__(self, images: ImageDataset, seed: int) -> None:
        self.images, self.seed, self.epoch = images, seed, 0

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        """Return an image as this epoch shows it, its label and its index."""
        with random_as(self.seed, self.epoch, index):
            return self.images[index]


def train_loader(
    data: TrainingImages, members: list[int], epoch: int, batch: int, share: tuple[int, int],
    workers: int,
) -> DataLoader[tuple[Tensor, int, int]]:  # fmt: skip
    """The batches of one epoch in an order of its own.

    Args:
        data: the images.
        members: which of them to train on.
        epoch: from 0.
        batch: images in a batch, over all processes; those left over are left out.
        share: this process, and of how many.
        workers: processes that load.
    """
    data.epoch = epoch
    rank, count = share
    generator = torch.Generator().manual_seed(derive(data.seed, epoch, -1))
    order = torch.randperm(len(members), generator=generator)
    full = order[: len(order) // batch * batch].view(-1, batch)
    batches = [[members[i] for i in row[rank::count].tolist()] for row in full]
    return DataLoader(
        data,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )


def open_training(
    model: nn.Module, data: ImageDataset, settings: Settings
) -> tuple[TrainingImages, ImageDataset]:
    """One dataset as training wants it, with augmentation; and as evaluation does."""
    name = "cifar10" if data.classes == CIFAR10_CLASSES else None
    training, plain = copy.copy(data), copy.copy(data)
    training.transform = train_transform(model, settings, name)
    plain.transform = eval_transform(model, data=name)
    return TrainingImages(training, settings.seed), plain


def readable(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A batch without the images that could not be read.

    Raises:
        DataError: where none is left.
    """
    good = labels != SKIPPED_LABEL
    if not good.any():
        raise DataError("expected images in a batch, and none of them can be read; check the data.")
    return (images, labels) if good.all() else (images[good], labels[good])
