"""The embedded data: scikit-learn's handwritten digits in a fixed, stratified split.

1797 images of 8x8 pixels with values 0..16 (the test part of the UCI "Optical Recognition of
Handwritten Digits" set, CC BY 4.0): 1437 for training, 360 held out.
``scripts/embed_digits.py`` made the file.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenred.core.errors import DataError

DIGITS_CLASSES = tuple("0123456789")
DIGITS_SPLITS = ("test", "train")
_SIDE = 32
_WHITE = 16


@lru_cache(maxsize=len(DIGITS_SPLITS))
def digits_arrays(split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Load one split of the embedded digits.

    Args:
        split: ``"train"`` (1437 images) or ``"test"`` (360).

    Returns:
        Read-only arrays: images (n, 8, 8) with values 0..16, and labels (n,) with values 0..9.

    Raises:
        DataError: for any other split.
    """
    if split not in DIGITS_SPLITS:
        raise DataError(
            f"digits has the splits {' and '.join(DIGITS_SPLITS)}, got {split!r}; use one of them."
        )
    with (files("tokenred.data") / "digits.npz").open("rb") as file, np.load(file) as stored:
        images, labels = stored[f"{split}_x"], stored[f"{split}_y"]
    images.setflags(write=False)
    labels.setflags(write=False)
    return images, labels


def digit_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Turn pixels (8, 8) of 0..16 into the RGB image of 32x32, bilinear, that the models see."""
    grey = np.rint(pixels.astype(np.float64) * (255 / _WHITE)).astype(np.uint8)
    large = Image.fromarray(grey).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    return large.convert("RGB")


class DigitsSource:
    """A split of the embedded digits as an image source; ``labels`` holds the digits."""

    def __init__(self, split: str = "test") -> None:
        self._images, labels = digits_arrays(split)
        self.split = split
        self.labels: list[int] = labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return f"digits/{self.split}/{index:04d}"

    def image(self, index: int) -> Image.Image:
        return digit_image(self._images[index])

    def raw(self, index: int) -> bytes:
        pixels: bytes = self._images[index].tobytes()
        return pixels
