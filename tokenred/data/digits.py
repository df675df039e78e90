"""The bundled data: scikit-learn's handwritten digits in a fixed, stratified split.

1797 images of 8x8 pixels with values 0..16 (the test part of the UCI "Optical Recognition of
Handwritten Digits" set, CC BY 4.0): 1437 for training, 360 held out.
``scripts/embed_digits.py`` made the file.
"""

from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from tokenred.data.places import check_fits

DIGITS_CLASSES = tuple("0123456789")
_SIDE = 32
_WHITE = 16


@cache
def _stored() -> dict[str, Any]:
    with (files("tokenred.data") / "digits.npz").open("rb") as file, np.load(file) as stored:
        return dict(stored)


class DigitsSource:
    """A split of the bundled digits as an image source; ``labels`` holds the digits.

    The images are RGB of 32x32, enlarged bilinearly, as the models see them; ``pixels (n, 8, 8)``
    holds the values 0..16.

    Args:
        split: ``"train"`` (1437 images) or ``"test"`` (360).

    Raises:
        DataError: for any other split.
    """

    def __init__(self, split: str = "test") -> None:
        check_fits("digits", split)
        self.split = split
        self.pixels = _stored()[f"{split}_x"]
        self.labels: list[int] = _stored()[f"{split}_y"].tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return f"digits/{self.split}/{index:04d}"

    def image(self, index: int) -> Image.Image:
        grey = np.rint(self.pixels[index].astype(np.float64) * (255 / _WHITE)).astype(np.uint8)
        large = Image.fromarray(grey).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        return large.convert("RGB")

    def raw(self, index: int) -> bytes:
        pixels: bytes = self.pixels[index].tobytes()
        return pixels
