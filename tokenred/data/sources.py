"""What an image source is, and how a file becomes an RGB image."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from PIL import Image

__all__ = [
    "MOST_BYTES",
    "ImageSource",
    "NamedSource",
    "decode",
    "open_file",
    "pixels_of",
    "raw_of",
    "read_image",
    "to_rgb",
]

MOST_BYTES = 1 << 28
"""Files of more bytes, unpacked, are no pictures."""

_LONGEST = 100  # a transform that scales the short side makes the long one so many times longer
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
# Pillow reads their 16 bits into 32.
_WIDENED = ("PNG", "PPM")


class ImageSource(Protocol):
    """A finite, ordered collection of images.

    A source must pickle and stay usable after a fork: data-loader workers get a copy of it. One
    that has a method ``raw(index) -> bytes``, such as the content of a file, is told apart from
    others without decoding its images.
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


class NamedSource(ImageSource, Protocol):
    """A folder or archive: its images, and what else was in it.

    Attributes:
        names: paths of the images, with forward slashes.
        left_out: how many files are no images, by kind.
    """

    names: list[str]
    left_out: dict[str, int]


def read_image(path: Path) -> Image.Image:
    """Decode an image file to RGB.

    Raises:
        Exception: whatever Pillow raises on a corrupt file, and as `decode`.
    """
    with open_file(path) as file:
        return _decoded(file)


def _without_blocking(path: str, flags: int) -> int:
    # Should a FIFO have come in the file's place.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextmanager
def open_file(path: Path) -> Iterator[IO[bytes]]:
    """A regular file to be read.

    Raises:
        OSError: for one that cannot be opened.
        ValueError: for anything else, such as a FIFO.
    """
    with open(path, "rb", opener=_without_blocking) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("no regular file")
        yield file


def decode(data: bytes) -> Image.Image:
    """Decode a whole image file to RGB.

    Args:
        data: the bytes of the file.

    Returns:
        The image, fully loaded, in mode ``RGB``.

    Raises:
        ValueError: for pixels without a white, or an image more than 100 times longer than wide.
        Exception: whatever Pillow raises on a corrupt file.
    """
    return _decoded(io.BytesIO(data))


def _decoded(file: IO[bytes]) -> Image.Image:
    with Image.open(file) as image:
        short, long = sorted(image.size)
        if long > _LONGEST * short:
            raise ValueError(f"sides of {short} and {long}, more than {_LONGEST} times as long")
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode in RGB, as timm has it: without its alpha channel.

    16-bit grey is scaled so that 65535 is white.

    Raises:
        ValueError: for 32-bit pixels: what is white there, nothing says.
    """
    mode = image.mode
    if mode == "I" and image.format in _WIDENED:
        mode = _SIXTEEN_BITS[0]
    if mode in _SIXTEEN_BITS:
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if mode in ("I", "F"):
        raise ValueError(f"32-bit pixels (mode {mode}) have no stated white; store 8 or 16 bits")
    if mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def raw_of(source: ImageSource, index: int) -> bytes:
    """What an image is, as bytes: those that the source keeps, or the pixels."""
    raw = getattr(source, "raw", None)
    found: bytes = pixels_of(source.image(index)) if raw is None else raw(index)
    return found


def pixels_of(image: Image.Image) -> bytes:
    """Mode, size and pixels of an image."""
    return f"{image.mode} {image.size} ".encode() + image.tobytes()
