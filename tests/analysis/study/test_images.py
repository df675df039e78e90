"""Images that are kept between cells."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import tokenred as tr
from tokenred.analysis.measure.accuracy import evaluate
from tokenred.analysis.study.images import KeptImages
from tokenred.data import ImageDataset, balanced_subset, open_dataset

BYTES = 3 * 32 * 32 * 4


class Counting(ImageDataset):
    def __getitem__(self, index: int) -> Any:
        READ.append(index)
        return super().__getitem__(index)


READ: list[int] = []


@pytest.fixture
def whole() -> ImageDataset:
    READ.clear()
    digits = open_dataset("digits")
    return Counting(digits.source, digits.labels, digits.classes, "digits")


def test_gives_what_the_dataset_gives(whole: ImageDataset) -> None:
    kept = KeptImages(whole, [5, 7, 300], context=10 * BYTES)
    assert len(kept) == 3
    for _ in range(2):
        for at, place in enumerate((5, 7, 300)):
            image, label, index = kept[at]
            expected, own, _ = open_dataset("digits")[place]
            assert torch.equal(image, expected)
            assert (label, index) == (own, place)
    assert READ == [5, 7, 300]
    assert kept.name_of(300) == whole.name_of(300)
    assert kept.why_unreadable(300) is None


def test_room_is_kept_to_also_by_copies(whole: ImageDataset) -> None:
    import copy

    kept = KeptImages(whole, range(4), context=2 * BYTES + 1)
    for view in (kept, copy.copy(kept)):
        for at in range(4):
            view[at]
    assert READ == [0, 1, 2, 3, 2, 3]
    nothing = KeptImages(whole, range(2), context=0)
    assert [nothing[0][1], nothing[0][1]] == [whole.labels[0]] * 2
    assert len(READ) == 8


def test_an_image_that_cannot_be_read_is_tried_again(
    whole: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = whole.source.image
    broken = {1}

    def image(index: int) -> Any:
        if index in broken:
            raise OSError("torn")
        return real(index)

    monkeypatch.setattr(whole.source, "image", image)
    kept = KeptImages(whole, [0, 1], context=10 * BYTES)
    assert kept[1][1:] == (-1, 1)
    assert "torn" in str(kept.why_unreadable(1))
    broken.clear()
    assert kept[1][1:] == (whole.labels[1], 1)


def test_evaluation_finds_the_same(digits: nn.Module, whole: ImageDataset) -> None:
    chosen = balanced_subset(whole, 20, seed=3)
    reduced = tr.wrap(digits, tr.strategy("gtp", P=7))
    kept = KeptImages(whole, chosen, context=100 * BYTES)
    expected = evaluate(reduced, "digits", limit=20, seed=3, batch_size=8, progress=False)
    kept.transform = None
    found = evaluate(reduced, kept, batch_size=8, progress=False)
    assert found.index.tolist() == expected.index.tolist() == chosen
    assert found.label.tolist() == expected.label.tolist()
