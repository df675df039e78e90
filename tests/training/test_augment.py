"""Augmented images, and the batches of an epoch."""

from typing import Any

import pytest
import torch

from tests.training.conftest import digits, tiny
from tokenred.data import eval_transform
from tokenred.training import Settings
from tokenred.training.augment import TrainingImages, train_transform

PLAIN = Settings(crop="none", flip=0, auto_augment=None, color_jitter=0, erasing=0)


@pytest.mark.parametrize("crop", ["none", "resized", "padded", "affine"])
def test_each_crop_keeps_the_size_and_changes_the_image(crop: str) -> None:
    image = digits("test", 1).source.image(0)
    made = train_transform(tiny(), PLAIN.replace(crop=crop))
    views = torch.stack([made(image) for _ in range(4)])
    assert views.shape == (4, 3, 32, 32)
    plain = eval_transform(tiny())(image)
    if crop == "none":
        torch.testing.assert_close(views, plain.expand_as(views))
    else:
        assert len({view.numpy().tobytes() for view in views}) > 1


def test_processes_share_the_batches_of_one() -> None:
    def indices(epoch: int, share: tuple[int, int]) -> list[list[int]]:
        few: Any = Settings(batch_size=6, mixup=0, cutmix=0)
        images = TrainingImages(tiny(), digits("test", 20), few, share=share)
        return [index.tolist() for _, _, index in images.epoch(epoch)]

    alone, first, second = indices(1, (0, 1)), indices(1, (0, 2)), indices(1, (1, 2))
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == [*map(sorted, alone)]
    assert len(alone) == 3
    assert len({i for batch in alone for i in batch}) == 18
    assert indices(2, (0, 1)) != alone


def test_a_view_depends_on_seed_epoch_and_image_alone() -> None:
    def views(seed: int, epoch: int) -> dict[int, torch.Tensor]:
        images = TrainingImages(tiny(), digits("test", 8), Settings(batch_size=4, seed=seed))
        torch.rand(3)  # whatever else is drawn
        return {
            int(i): x for xs, _, ids in images.epoch(epoch) for i, x in zip(ids, xs, strict=True)
        }

    first, again = views(0, 0), views(0, 0)
    assert all(torch.equal(first[i], again[i]) for i in first)
    for other in (views(1, 0), views(0, 1)):
        assert not all(torch.equal(first[i], other[i]) for i in first)
