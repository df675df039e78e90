from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import Tensor

from tokenred.core.errors import DataError
from tokenred.data.dataset import SKIPPED_LABEL, ImageDataset


class Pictures:
    """Three pictures; the middle one cannot be read."""

    def __len__(self) -> int:
        return 3

    def name(self, index: int) -> str:
        return f"picture {index}"

    def image(self, index: int) -> Image.Image:
        if index == 1:
            raise OSError("cut off")
        return Image.new("RGB", (4, 5), (255, 0, 51))


def dataset() -> ImageDataset:
    return ImageDataset(Pictures(), [1, 0, 1], ("cat", "dog"), "pictures")


def ones(_: Image.Image) -> Tensor:
    return torch.ones(3, 7, 7)


def test_an_item_is_image_label_and_index() -> None:
    image, label, index = dataset()[2]

    assert image.shape == (3, 5, 4)
    assert image[:, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.2])
    assert (label, index) == (1, 2)


def test_the_transform_can_be_replaced() -> None:
    data = dataset()
    data.transform = ones

    assert data[0][0].shape == (3, 7, 7)


def test_an_unreadable_image_is_zeros_of_the_same_shape_and_label_minus_one() -> None:
    data = dataset()
    data.transform = ones

    image, label, index = data[1]

    assert torch.equal(image, torch.zeros(3, 7, 7))
    assert (label, index) == (SKIPPED_LABEL, 1)
    assert data.name_of(1) == "picture 1"
    assert data.why_unreadable(1) == "OSError: cut off"
    assert data.why_unreadable(0) is None


def test_an_error_of_the_transform_is_not_hidden() -> None:
    def broken(_: Image.Image) -> Tensor:
        raise ZeroDivisionError

    data = dataset()
    data.transform = broken

    with pytest.raises(ZeroDivisionError):
        data[0]


def test_indices_end_where_the_images_do() -> None:
    data = dataset()

    assert data[-1][2] == 2
    assert [index for _, _, index in data] == [0, 1, 2]
    with pytest.raises(IndexError, match="below 3 in pictures"):
        data[3]


def test_it_can_be_read_in_print() -> None:
    assert repr(dataset()) == "ImageDataset('pictures', images=3, classes=2)"


@pytest.mark.parametrize("labels", [[], [0, 1]])
def test_labels_must_fit_the_images(labels: list[int]) -> None:
    with pytest.raises(DataError, match="one label for each"):
        ImageDataset(Pictures(), labels, ("cat",), "pictures")
