from __future__ import annotations

import pickle

import numpy as np
import pytest

from tokenred.core.errors import DataError
from tokenred.data.digits import DigitsSource, digit_image, digits_arrays


@pytest.mark.parametrize(("split", "count"), [("train", 1437), ("test", 360)])
def test_the_split_is_fixed_and_stratified(split: str, count: int) -> None:
    images, labels = digits_arrays(split)

    assert images.shape == (count, 8, 8)
    assert images.dtype == np.uint8
    assert images.max() == 16
    share = np.bincount(labels, minlength=10) / count
    assert np.all(np.abs(share - 0.1) < 0.005)


def test_no_test_image_is_at_the_same_place_in_train() -> None:
    train, test = digits_arrays("train")[0], digits_arrays("test")[0]

    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}


def test_the_arrays_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        digits_arrays("test")[0][0] = 0


def test_an_image_is_a_grey_rgb_picture_of_full_range() -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[2:6, 2:6] = 16

    image = np.asarray(digit_image(pixels))

    assert image.shape == (32, 32, 3)
    assert (image.min(), image.max()) == (0, 255)
    assert np.all(image[..., 0] == image[..., 1])


def test_the_source_names_and_pickles() -> None:
    source = pickle.loads(pickle.dumps(DigitsSource("test")))

    assert len(source) == 360
    assert source.name(7) == "digits/test/0007"
    assert source.image(0).size == (32, 32)


def test_another_split_is_refused() -> None:
    with pytest.raises(DataError, match="splits test and train, got 'val'"):
        DigitsSource("val")
