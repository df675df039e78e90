"""The images that models get to see, and the models as they were afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from tokenred.analysis.measure.image_stream import image_stream
from tokenred.analysis.measure.inputs import open_for
from tokenred.core.errors import ConfigError, DataError

OPTIONS: dict[str, Any] = {
    "batch_size": 8, "workers": 0, "limit": None, "device": None, "amp": None, "seed": 0,
    "progress": False, "title": "test",
}  # fmt: skip


def test_all_images_in_eval_mode_without_gradients(digits: nn.Module) -> None:
    digits.train()
    try:
        with image_stream(
            [digits], open_for(digits, "digits"), **OPTIONS | {"limit": 20}
        ) as stream:
            shapes = []
            for images in stream:
                assert not digits.training
                assert not torch.is_grad_enabled()
                shapes.append(tuple(images.shape))
        assert shapes == [(8, 3, 32, 32), (8, 3, 32, 32), (4, 3, 32, 32)]
        assert (stream.count, stream.skipped) == (20, 0)
        assert digits.training
        assert torch.is_grad_enabled()
    finally:
        digits.eval()


def test_autocast(digits: nn.Module) -> None:
    data = open_for(digits, "digits")
    with image_stream([digits], data, **OPTIONS | {"limit": 2, "amp": torch.bfloat16}) as stream:
        for images in stream:
            assert digits(images).dtype == torch.bfloat16


def test_images_have_the_type_of_the_weights() -> None:
    model = nn.Linear(1, 1).double()
    loader: DataLoader[Any] = DataLoader([(torch.zeros(3, 4, 4), 0)] * 3)
    with image_stream([model], loader, **OPTIONS) as stream:
        assert [images.dtype for images in stream] == [torch.float64] * 3


def test_unreadable_images_are_left_out(digits: nn.Module, tmp_path: Path) -> None:
    for label in range(10):
        folder = tmp_path / str(label)
        folder.mkdir()
        (folder / "torn.png").write_bytes(b"torn")
        if label < 3:
            Image.new("RGB", (32, 32)).save(folder / "a.png")
    with image_stream([digits], open_for(digits, tmp_path), **OPTIONS) as stream:
        assert sum(len(images) for images in stream) == 3
    assert (stream.count, stream.skipped) == (3, 10)
    for label in range(3):
        (tmp_path / str(label) / "a.png").write_bytes(b"torn too")
    with (
        pytest.raises(DataError, match="13 that cannot be read"),
        image_stream([digits], open_for(digits, tmp_path), **OPTIONS) as stream,
    ):
        list(stream)


def test_refused(digits: nn.Module) -> None:
    data = open_for(digits, "digits")
    for wrong in ({"batch_size": 0}, {"limit": 0}, {"device": "no-such"}, {"amp": torch.int8}):
        with (
            pytest.raises(ConfigError, match=next(iter(wrong))),
            image_stream([digits], data, **OPTIONS | wrong),
        ):
            raise AssertionError("nothing was refused")
