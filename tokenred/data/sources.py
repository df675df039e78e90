"""What an image source is, and decoding a file to an RGB image."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

_MOST_BYTES = 1 << 28  # larger files, unpacked, are not images
_LONGEST = 100  # resizing the short side would make the long side this many times longer
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_WIDENED = ("PNG", "PPM")  # Pillow reads their 16 bits into 32


class ImageSource(Protocol):
    """A finite, ordered collection of images.

    A source must be picklable and stay usable after a fork: data-loader workers get a copy of it.
    If it has a method ``raw(index) -> bytes``, such as the content of a file, its images can be
    compared without decoding them.
    """

    def __len__(self) -> int:
        """Return how many images there are."""
        ...

    def name(self, index: int) -> str:
        """Return the image's name, for example its path inside an archive."""
        ...

    def image(self, index: int) -> Image.Image:
        """Return the decoded RGB image; any exception means that it is unreadable."""
        ...


def read_file(path: Path) -> bytes:
    """The content of a file; a `ValueError` for a FIFO, or a file too large to be an image."""
    with open(path, "rb", opener=_without_blocking) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("not a regular file")
        check_size(about.st_size)
        return file.read()


def _without_blocking(path: str, flags: int) -> int:
    # In case a FIFO has replaced the file.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def check_size(size: int) -> None:
    """Refuse a file of over 256 MiB with a `ValueError`: it is not an image."""
    if size > _MOST_BYTES:
        raise ValueError(f"{size} bytes, over {_MOST_BYTES}")


def decode(data: bytes) -> Image.Image:
    """Decode an image file to a fully loaded RGB image; a bad one raises whatever Pillow does."""
    with Image.open(io.BytesIO(data)) as image:
        short, long = sorted(image.size)
        if long > _LONGEST * short:
            raise ValueError(f"sides of {short} and {long}, more than {_LONGEST} times as long")
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB, as timm does: without its alpha channel.

    16-bit grey is scaled so that 65535 is white.
    """
    mode = image.mode
    if mode in _SIXTEEN_BITS or (mode == "I" and image.format in _WIDENED):
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if mode in ("I", "F"):
        raise ValueError(f"32-bit pixels (mode {mode}) have no defined white; store 8 or 16 bits")
    if mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def raw_of(source: ImageSource, index: int) -> bytes:
    """The content of an image: the source's own bytes, or the pixels."""
    raw = getattr(source, "raw", None)
    found: bytes = pixels_of(source.image(index)) if raw is None else raw(index)
    return found


def pixels_of(image: Image.Image) -> bytes:
    """Mode, size and pixels of an image."""
    return f"{image.mode} {image.size} ".encode() + image.tobytes()
