from __future__ import annotations

import pytest
import torch

from tokenred.training.digits_augment import AffineRange, mix, random_affine


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def disc() -> torch.Tensor:
    axis = torch.linspace(-1, 1, 32)
    return ((axis[:, None] ** 2 + axis**2) < 0.25).float().expand(4, 3, 32, 32)


def test_no_range_changes_nothing() -> None:
    moved = random_affine(disc(), AffineRange(0, 0, 0, 0), generator())

    assert torch.allclose(moved, disc(), atol=1e-5)


def test_a_disc_may_turn_but_not_change() -> None:
    moved = random_affine(disc(), AffineRange(45, 0, 0, 0), generator())

    assert (moved - disc()).abs().mean() < 0.02


def test_images_move_each_on_their_own_and_by_seed() -> None:
    moved = random_affine(disc(), AffineRange(), generator())

    assert torch.equal(moved, random_affine(disc(), AffineRange(), generator()))
    assert not torch.allclose(moved[0], moved[1], atol=0.1)


@pytest.mark.parametrize("shift", [0.05, 0.1])
def test_a_shift_stays_in_its_range(shift: float) -> None:
    moved = random_affine(disc(), AffineRange(0, shift, 0, 0), generator())
    columns = moved[:, 0].sum(1)
    centre = (columns * torch.arange(32)).sum(1) / columns.sum(1)

    assert (centre - 15.5).abs().max() <= 32 * shift + 0.01


def test_mixing_keeps_targets_whole() -> None:
    images, targets = torch.rand(4, 3, 8, 8), torch.eye(4)

    mixed, blended = mix(images, targets, 0.5, generator())

    assert mixed.shape == images.shape
    assert torch.allclose(blended.sum(1), torch.ones(4))
    assert mix(images, targets, 0, generator())[0] is images
