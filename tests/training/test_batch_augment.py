from __future__ import annotations

import torch

from tokenred.training.batch_augment import BatchAugment, random_crop, random_flip
from tokenred.training.randomness import random_as

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


def pictures(count: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)


def alike(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two pictures are the same or each other's mirror image."""
    return any(torch.allclose(first, other, atol=1e-5) for other in (second, second.flip(-1)))


def test_a_crop_is_a_shift_with_zeros_around() -> None:
    images = pictures()
    with random_as(1):
        moved = random_crop(images, 2)
    wide = torch.nn.functional.pad(images, (2,) * 4)
    places = []
    for one, padded in zip(moved, wide, strict=True):
        found = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(one, padded[:, y : y + 8, x : x + 8])
        ]
        places += found
    assert len(places) == len(images)
    assert len(set(places)) > 3  # each image goes its own way
    assert moved.dtype == torch.uint8
    assert random_crop(images, 0) is images


def test_about_half_is_mirrored() -> None:
    images = pictures(64)
    with random_as(2):
        turned = random_flip(images)
    same = (turned == images).flatten(1).all(1)
    mirrored = (turned == images.flip(-1)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 20 < int(same.sum()) < 44


def test_without_changes_it_normalises_as_evaluation() -> None:
    images = pictures()
    augment = BatchAugment(MEAN, STD, padding=0)
    with random_as(3):
        out = augment(images)
    plain = augment.normalise(images)
    scaled = images[0, 1, 2, 3].item() / 255
    assert abs(plain[0, 1, 2, 3].item() - (scaled - 0.4) / 0.2) < 1e-5
    either = torch.isclose(out, plain) | torch.isclose(out, plain.flip(-1))
    assert either.all()


def test_a_group_shares_its_operations_and_all_repeats_by_seed() -> None:
    images = torch.full((8, 3, 8, 8), 90, dtype=torch.uint8)
    images[:, :, 2:5, 1:4] = 200
    augment = BatchAugment(MEAN, STD, operations=2, magnitude=15, group=4, padding=0)
    seen = set()
    for seed in range(6):
        with random_as(seed):
            first = augment(images)
        with random_as(seed):
            assert torch.equal(augment(images), first)
        either = [
            torch.allclose(a, first[0], atol=1e-5)
            or torch.allclose(a, first[0].flip(-1), atol=1e-5)
            for a in first[:4]
        ]
        assert all(either)
        seen.add(alike(first[4], first[0]))
    assert False in seen  # the other group has others


def test_erasing() -> None:
    images = pictures(32)
    augment = BatchAugment(MEAN, STD, padding=0, erasing=0.5)
    with random_as(4):
        out = augment(images)
    plain = augment.normalise(images)
    kept = [
        torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a, b in zip(out, plain, strict=True)
    ]
    assert 6 < sum(kept) < 26
