"""Data gets the model's preprocessing, and the caller's dataset stays as it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from torchvision import transforms

from tokenred.analysis.measure.inputs import batches, open_for, shown_pixels
from tokenred.core.errors import DataError
from tokenred.data import CIFAR10_MEAN, CIFAR10_STD, open_dataset
from tokenred.data.classes import CIFAR10_CLASSES
from tokenred.models import load_model

WHOLE: dict[str, Any] = {"batch_size": 1, "workers": 0, "limit": None, "seed": 0}


def test_the_callers_dataset_stays(digits: nn.Module) -> None:
    mine = open_dataset("digits")
    opened = open_for(digits, mine)
    assert mine.transform is None
    assert opened[0][0].shape == (3, 32, 32)
    assert opened[0][0].min() < 0
    headless = load_model("digits", pretrained=False)
    headless.reset_classifier(0)
    assert open_for(headless, mine).labels == mine.labels
    own = torch.nn.Identity()
    assert open_for(digits, open_dataset("digits", transform=own)).transform is own


def test_cifar10_is_known_by_its_classes(tmp_path: Path) -> None:
    for name in CIFAR10_CLASSES:
        (tmp_path / name).mkdir()
        Image.new("RGB", (32, 32), (255, 255, 255)).save(tmp_path / name / "white.png")
    model = load_model("digits", pretrained=False)
    model.pretrained_cfg = {}
    white = open_for(model, tmp_path)[0][0]
    expected = (1 - torch.tensor(CIFAR10_MEAN)) / torch.tensor(CIFAR10_STD)
    torch.testing.assert_close(white[:, 0, 0], expected)


class Endless(IterableDataset[tuple[torch.Tensor, int]]):
    def __iter__(self):  # type: ignore[no-untyped-def]
        while True:
            yield torch.zeros(3), 1


def test_batches_of_a_loader() -> None:
    loader = DataLoader(Endless(), batch_size=4)
    stream, total = batches(loader, **WHOLE | {"limit": 6})
    assert total == 6
    assert [index.tolist() for _, _, index in stream] == [[0, 1, 2, 3], [4, 5]]
    assert batches(loader, **WHOLE)[1] is None
    stream, _ = batches(DataLoader([1, 2]), **WHOLE)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="collate_fn"):
        next(stream)


def test_normalisation_is_undone() -> None:
    image = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    normalise = transforms.Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    found = shown_pixels(normalise(image), transforms.Compose([normalise]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, image.permute(1, 2, 0).numpy(), atol=1e-6)
    plain = torch.tensor([-0.5, 0.25, 1.5]).view(3, 1, 1)
    assert shown_pixels(plain.half(), lambda picture: picture).tolist() == [[[0.0, 0.25, 1.0]]]
