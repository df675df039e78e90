"""The images of a setting, chosen once and kept ready between cells."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tokenred.data import SKIPPED_LABEL, ImageDataset

__all__ = ["KeptImages"]


class KeptImages(ImageDataset):
    """Some images of a dataset, each kept as the tensor that it was turned into.

    Args:
        whole: the dataset, with its transform.
        chosen: indices into it, in order.
        room: bytes that may be kept; 0 keeps nothing.

    Shapes:
        an entry: image (3, height, width), label, and the index in the whole dataset.
    """

    def __init__(self, whole: ImageDataset, chosen: Sequence[int], context: int) -> None:
        super().__init__(whole.source, whole.labels, whole.classes, whole.name, whole.transform)
        self.labels = tuple(whole.labels[index] for index in chosen)
        self._whole = whole
        self._chosen = tuple(chosen)
        self._room = context
        self._kept: dict[int, Tensor] = {}

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        """The image, its label (-1 where it cannot be read) and its index in the whole dataset."""
        place = self._chosen[index]
        if place in self._kept:
            return self._kept[place], self.labels[index], place
        image, label, _ = self._whole[place]
        # All images have one size. Copies of this dataset share what is kept.
        size = image.numel() * image.element_size()
        if label != SKIPPED_LABEL and (len(self._kept) + 1) * size <= self._room:
            self._kept[place] = image
        return image, label, place

    def name_of(self, index: int) -> str:
        return self._whole.name_of(index)

    def why_unreadable(self, index: int) -> str | None:
        return self._whole.why_unreadable(index)
