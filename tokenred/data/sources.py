"""What an image source is: something that names and opens images by index."""

from __future__ import annotations

import io
from typing import Protocol

from PIL import Image

__all__ = ["ImageSource", "decode"]


class ImageSource(Protocol):
    """A finite, ordered collection of images.

    A source must pickle and stay usable after a fork: data-loader workers get a copy of it.
    """

    def __len__(self) -> int:
        """Return how many images there are."""
        ...

    def name(self, index: int) -> str:
        """Return the image's name, for instance its path inside an archive."""
        ...

    def image(self, index: int) -> Image.Image:
        """Return the decoded RGB image; any exception means that it cannot be read."""
        ...


def decode(data: bytes) -> Image.Image:
    """Decode a whole image file to RGB.

    Args:
        data: the bytes of the file.

    Returns:
        The image, fully loaded, in mode ``RGB``.

    Raises:
        Exception: whatever Pillow raises on a corrupt file.
    """
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")
