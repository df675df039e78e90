"""Means over images: of the readable ones, as the models' own dtype wants them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tokenred.analysis.measure.inputs import open_for
from tokenred.analysis.measure.per_image import means_over_images
from tokenred.core.errors import DataError

OPTIONS: dict[str, Any] = {
    "batch_size": 8, "workers": 0, "limit": None, "device": None, "amp": None, "seed": 0,
    "progress": False, "title": "test", "level": 0.95, "name": None,
}  # fmt: skip
ROWS = [{"what": "a"}, {"what": "b"}]


def _brightness(images: Tensor) -> np.ndarray:
    mean = images.mean(dim=(1, 2, 3)).numpy()
    return np.stack((mean, mean - 1), axis=1)


def test_figures_and_what_they_are_of() -> None:
    model = nn.Linear(1, 1).double()
    dtypes = []

    def measure(images: Tensor) -> np.ndarray:
        dtypes.append(images.dtype)
        assert not torch.is_grad_enabled()
        return _brightness(images)

    loader: DataLoader[Any] = DataLoader([(torch.full((3, 4, 4), float(i)), 0) for i in range(3)])
    frame, notes = means_over_images([model], loader, ROWS, measure, minus={1: 0}, **OPTIONS)
    assert dtypes == [torch.float64] * 3
    assert frame["what"].tolist() == ["a", "b"]
    assert frame["mean"].tolist() == [1, 0]
    assert frame["images"].tolist() == [3, 3]
    assert np.isnan(frame.loc[0, "difference"])
    # Paired, the gap is the same for all images.
    assert frame.loc[1, ["difference", "difference_low", "difference_high"]].tolist() == [-1] * 3
    assert frame["model"].tolist() == ["Linear"] * 2
    assert notes == ("3 images; 95% bootstrap intervals over them.",)


def test_unreadable_images_are_left_out(digits: nn.Module, tmp_path: Path) -> None:
    for label in range(10):
        folder = tmp_path / str(label)
        folder.mkdir()
        (folder / "torn.png").write_bytes(b"torn")
        if label < 3:
            Image.new("RGB", (32, 32)).save(folder / "a.png")
    data = open_for(digits, tmp_path)
    frame, notes = means_over_images([digits], data, ROWS, _brightness, **OPTIONS)
    assert frame["images"].tolist() == [3, 3]
    assert notes[1:] == ("10 unreadable images skipped.",)
    for label in range(3):
        (tmp_path / str(label) / "a.png").write_bytes(b"torn too")
    with pytest.raises(DataError, match="13 that cannot be read"):
        means_over_images([digits], open_for(digits, tmp_path), ROWS, _brightness, **OPTIONS)
