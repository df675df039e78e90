from __future__ import annotations

import pytest
import torch

from tokenred.core.errors import DataError
from tokenred.data import eval_transform, open_dataset
from tokenred.models import load_model
from tokenred.training.augment import open_training, readable, train_loader, train_transform
from tokenred.training.settings import Settings

PLAIN = Settings(crop="none", flip=0, auto_augment=None, color_jitter=0, erasing=0)


def test_without_augmentation_it_is_the_evaluation() -> None:
    model = load_model("digits")
    image = open_dataset("digits").source.image(0)
    expected = eval_transform(model)(image)
    torch.testing.assert_close(train_transform(model, PLAIN)(image), expected)


@pytest.mark.parametrize("crop", ["resized", "padded", "affine"])
def test_each_crop_keeps_the_size_and_changes_the_image(crop: str) -> None:
    model = load_model("digits")
    image = open_dataset("digits").source.image(0)
    made = train_transform(model, PLAIN.replace(crop=crop))
    views = torch.stack([made(image) for _ in range(4)])
    assert views.shape == (4, 3, 32, 32)
    assert not torch.equal(views[0], views[1]) or not torch.equal(views[1], views[2])


def test_processes_share_the_batches_of_one() -> None:
    training, _ = open_training(load_model("digits"), open_dataset("digits"), Settings())

    def indices(epoch: int, share: tuple[int, int]) -> list[list[int]]:
        loader = train_loader(training, list(range(20)), epoch, 6, share, 0)
        return [index.tolist() for _, _, index in loader]

    alone, first, second = indices(1, (0, 1)), indices(1, (0, 2)), indices(1, (1, 2))
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == [*map(sorted, alone)]
    assert len(alone) == 3
    assert len({i for batch in alone for i in batch}) == 18
    assert indices(2, (0, 1)) != alone


def test_unreadable_images_are_left_out() -> None:
    images, labels = torch.arange(3.0), torch.tensor([4, -1, 5])
    kept, known = readable(images, labels)
    assert kept.tolist() == [0, 2]
    assert known.tolist() == [4, 5]
    with pytest.raises(DataError, match="none of them"):
        readable(images[1:2], labels[1:2])
