"""Pixels from what a model takes."""

from __future__ import annotations

import numpy as np
import torch
from torchvision import transforms

from tokenred.analysis.measure.tokens.pixels import shown_pixels


def test_normalisation_is_undone() -> None:
    image = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    normalise = transforms.Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    found = shown_pixels(normalise(image), transforms.Compose([normalise]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, image.permute(1, 2, 0).numpy(), atol=1e-6)


def test_of_several_the_last_one_counts() -> None:
    """What an earlier step did belongs to the picture."""
    first, last = (
        transforms.Normalize((0.1,) * 3, (1.0,) * 3),
        transforms.Normalize((0.5,) * 3, (2.0,) * 3),
    )
    image = torch.full((3, 2, 2), 0.7)
    found = shown_pixels(last(first(image)), transforms.Compose([first, last]))
    np.testing.assert_allclose(found, 0.6, atol=1e-6)


def test_without_a_normalisation() -> None:
    image = torch.tensor([-0.5, 0.25, 1.5]).view(3, 1, 1)
    found = shown_pixels(image.half(), lambda picture: picture)
    assert found.tolist() == [[[0.0, 0.25, 1.0]]]
