"""The dataset that evaluation loops read: an image, its label and its index."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import to_tensor

from tokenred.core.errors import DataError
from tokenred.data.sources import ImageSource

__all__ = ["SKIPPED_LABEL", "ImageDataset"]

SKIPPED_LABEL = -1
_BLANK_SIDE = 32


class ImageDataset(Dataset[tuple[Tensor, int, int]]):
    """Labelled images, converted to RGB.

    An unreadable image does not stop a run: it becomes zeros with the label ``SKIPPED_LABEL`` (-1),
    in data-loader workers too. Evaluation loops drop those rows and report ``name_of(index)`` and
    ``why_unreadable(index)`` for each.

    Args:
        source: names and opens the images.
        labels: the class index of each image.
        classes: the class names by index.
        name: name of the data, for reports.
        transform: maps an RGB image to a tensor, of the same shape for all images; by default the
            image's own pixels (3, height, width) in 0..1. It may be replaced at any time before a
            loader is iterated.
        left_out: number of files in the source that are not images, by kind.

    Raises:
        DataError: if there is no image, or the number of labels differs.
    """

    def __init__(
        self,
        source: ImageSource,
        labels: Sequence[int],
        classes: Sequence[str],
        name: str,
        transform: Callable[[Image.Image], Tensor] | None = None,
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        if len(source) == 0 or len(labels) != len(source):
            raise DataError(
                f"expected images with one label each in {name}, got {len(source)} images and "
                f"{len(labels)} labels; check the source."
            )
        self.source = source
        self.labels = tuple(labels)
        self.classes = tuple(classes)
        self.name = name
        self.transform = transform
        self.left_out = dict(left_out or {})

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        more = f", left_out={self.left_out}" if self.left_out else ""
        return f"ImageDataset({self.name!r}, images={len(self)}, classes={len(self.classes)}{more})"

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        """Return the image, its label and its index.

        Args:
            index: from 0; negative indices count from the end.

        Returns:
            The transformed image (3, height, width); its label, -1 if it cannot be read; and the
            index, from 0.

        Raises:
            IndexError: if there is no such image.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected an index below {len(self)} in {self.name}, got {index}")
        index %= len(self)
        try:
            image = self.source.image(index)
        except Exception:  # Decoders raise nearly anything on a corrupt file.
            blank = self._to_tensor(Image.new("RGB", (_BLANK_SIDE, _BLANK_SIDE)))
            return torch.zeros_like(blank), SKIPPED_LABEL, index
        return self._to_tensor(image), self.labels[index], index

    def _to_tensor(self, image: Image.Image) -> Tensor:
        if self.transform is not None:
            return self.transform(image)
        pixels: Tensor = to_tensor(image)
        return pixels

    def name_of(self, index: int) -> str:
        """Return the image's name, such as its path in the folder or archive."""
        return self.source.name(index)

    def why_unreadable(self, index: int) -> str | None:
        """Read an image again and return the reason why it fails.

        Args:
            index: of the image.

        Returns:
            The reason, or None if the image can be read.
        """
        try:
            self.source.image(index)
        except Exception as error:  # As in __getitem__.
            # Pillow includes the repr of the object it read from, whose address changes.
            reason = re.sub(r"<(\S+) object at 0x[0-9a-f]+>", r"\1", str(error))
            return f"{type(error).__name__}: {reason}"
        return None
