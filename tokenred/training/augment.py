"""Training images: timm's augmentation around the model's own preprocessing, and their batches."""

import copy
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from tokenred.core.errors import ConfigError
from tokenred.data import ImageDataset, balanced_subset, eval_transform
from tokenred.data.classes import CIFAR10_CLASSES
from tokenred.data.sources import raw_of
from tokenred.data.transforms import data_config
from tokenred.training.devices import derive, random_as
from tokenred.training.settings import Settings


def train_transform(
    model: nn.Module, settings: Settings, data: str | None = None
) -> Callable[[Image.Image], Tensor]:
    """Augmentation, followed by the model's evaluation normalisation.

    ``data`` is the dataset's name, as for `tokenred.data.eval_transform`.

    Raises:
        ConfigError: for an ``auto_augment`` that timm does not know.
    """
    config = data_config(model, data)
    try:
        made: Any = create_transform(
            config["input_size"],
            is_training=True,
            hflip=settings.flip,
            color_jitter=settings.color_jitter,
            auto_augment=settings.auto_augment,
            interpolation=config["interpolation"],
            mean=config["mean"],
            std=config["std"],
            re_prob=settings.erasing,
            re_mode="pixel",
        )
    except (AssertionError, ValueError, KeyError) as error:
        raise ConfigError(
            "expected auto_augment in timm's format, such as 'rand-m9-mstd0.5-inc1', got "
            f"{settings.auto_augment!r} ({error})."
        ) from error
    if settings.crop != "resized":
        # In place of timm's random resized crop: the evaluation's resizing, then another crop.
        evaluation: Any = create_transform(**config, is_training=False)
        first, size = list(evaluation.transforms[:-2]), config["input_size"][1:]
        if settings.crop == "padded":
            first.append(transforms.RandomCrop(size, padding=max(1, size[0] // 8)))
        elif settings.crop == "affine":
            # These keep a handwritten digit readable.
            bilinear = transforms.InterpolationMode.BILINEAR
            first.append(transforms.RandomAffine(12, (0.09, 0.09), (0.86, 1.14), 10, bilinear))
        made = transforms.Compose([*first, *made.transforms[1:]])
    return made  # type: ignore[no-any-return]


def plain_images(model: nn.Module, data: ImageDataset) -> ImageDataset:
    """The dataset with the model's evaluation preprocessing."""
    plain = copy.copy(data)
    plain.transform = eval_transform(model, data=_name_of(data))
    return plain


class TrainingImages(Dataset[tuple[Tensor, int, int]]):
    """Augmented images whose randomness depends on seed, epoch and image, not on the loader.

    Args:
        model: its preprocessing is used.
        data: the images.
        settings: augmentation, batch size and seed.
        limit: maximum number of images, balanced over the classes; None for all.
        share: (rank, count) of this process; each process gets its part of every batch.
        workers: number of loading processes.

    Attributes:
        members: indices of the training images.
        steps: batches per epoch; an incomplete last batch is dropped.
    """

    def __init__(
        self,
        model: nn.Module,
        data: ImageDataset,
        settings: Settings,
        *,
        limit: int | None = None,
        share: tuple[int, int] = (0, 1),
        workers: int = 0,
    ) -> None:
        self.images = copy.copy(data)
        self.images.transform = train_transform(model, settings, _name_of(data))
        self.seed, self.batch = settings.seed, settings.batch_size
        self.share, self.workers, self._epoch = share, workers, 0
        if self.batch % (2 * share[1] if settings.mixes else share[1]):
            raise ConfigError(
                f"expected a batch size that {share[1]} processes can share evenly (in pairs if "
                f"images are mixed), got {self.batch}."
            )
        self.members = list(range(len(data)))
        if limit is not None:
            self.members = balanced_subset(data, limit, self.seed)
        self.steps = len(self.members) // self.batch
        if self.steps == 0:
            raise ConfigError(
                f"expected at least one batch of {self.batch}, got {len(self.members)} images; "
                "set a smaller batch_size."
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        """The image as augmented in this epoch, its label and its index."""
        with random_as(self.seed, self._epoch, index):
            return self.images[index]

    def epoch(self, number: int) -> DataLoader[tuple[Tensor, int, int]]:
        """This process's part of the batches of an epoch (from 0), shuffled."""
        self._epoch = number
        rank, count = self.share
        generator = torch.Generator().manual_seed(derive(self.seed, number, -1))
        order = torch.randperm(len(self.members), generator=generator)
        full = order[: self.steps * self.batch].view(-1, self.batch)
        return DataLoader(
            self,
            batch_sampler=[[self.members[i] for i in row[rank::count].tolist()] for row in full],
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),
        )


def images_digest(data: ImageDataset, members: Sequence[int]) -> str:
    """A short digest of the labels and contents of some images, independent of their names."""
    digest = hashlib.sha256()
    for index in members:
        digest.update(f"{data.labels[index]} ".encode())
        try:
            content = raw_of(data.source, index)
        except Exception as error:  # of an unreadable image
            content = type(error).__name__.encode()
        digest.update(hashlib.sha256(content).digest())
    return f"{data.name}, {len(members)} images, {digest.hexdigest()[:16]}"


def _name_of(data: ImageDataset) -> str | None:
    return "cifar10" if data.classes == CIFAR10_CLASSES else None
