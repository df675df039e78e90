"""Augmentation of whole batches of small images on the device that trains on them."""

from __future__ import annotations

import torch
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

__all__ = ["BatchAugment", "random_crop", "random_flip"]


def random_crop(images: Tensor, padding: int) -> Tensor:
    """Shift each image on its own by up to ``padding`` pixels; what comes in is 0.

    Args:
        images: (b, 3, height, width).
        padding: 0 for none.

    Returns:
        Images of the same shape and type.
    """
    if padding == 0:
        return images
    b, _, height, width = images.shape
    wide = torch.nn.functional.pad(images, (padding,) * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, b, 1)).to(images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    one = torch.arange(b, device=images.device)[:, None, None]
    # Indices apart by a slice: the channels come last.
    return wide[one, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def random_flip(images: Tensor) -> Tensor:
    """Mirror each image with probability one half."""
    mirrored = torch.rand(len(images), 1, 1, 1).to(images.device) < 0.5
    return torch.where(mirrored, images.flip(-1), images)


class BatchAugment:
    """RandAugment, crop, flip, normalisation and erasing of a batch.

    RandAugment (Cubuk et al., 2020) draws its operations once for a group of images and not for
    each, which is what makes it quick; who shares a group changes with every epoch. The rest is
    drawn for each image. Random numbers come from torch's, and Python's for erasing.

    Args:
        mean, std: of the pixels on the scale 0..1.
        operations: of RandAugment on each image; 0 for none.
        magnitude: its strength, 0 to 30.
        group: images that share their operations.
        padding: pixels by which an image may move.
        erasing: probability of random erasing.
        device: of the images.
    """

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        operations: int = 0,
        magnitude: int = 9,
        group: int = 16,
        padding: int = 4,
        erasing: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.mean = torch.tensor(mean, device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(std, device=device).view(1, -1, 1, 1)
        self.group, self.padding = group, padding
        self._distort = None
        if operations:
            grey = [round(255 * value) for value in mean]
            self._distort = v2.RandAugment(
                operations, magnitude, interpolation=InterpolationMode.BILINEAR, fill=grey
            )
        self._erase = None
        if erasing:
            self._erase = RandomErasing(erasing, mode="pixel", device=str(device))

    def __call__(self, images: Tensor) -> Tensor:
        """From pixels (b, 3, height, width) of uint8 to normalised floats of the same shape."""
        if self._distort is not None:
            images = torch.cat([self._distort(part) for part in images.split(self.group)])
        ready = self.normalise(random_flip(random_crop(images, self.padding)))
        return ready if self._erase is None else self._erase(ready)

    def normalise(self, images: Tensor) -> Tensor:
        """What evaluation does to pixels."""
        return (images.float() / 255 - self.mean) / self.std
