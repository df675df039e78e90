"""The command on a few dozen images."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image

from tokenred.core.errors import ConfigError, OutputExistsError
from tokenred.data.cifar10 import CIFAR10_CLASSES
from tokenred.models import load_model, read_checkpoint
from tokenred.training import cifar10

SMALL = ("--set", "patch=8", "--set", "width=16", "--set", "depth=2", "--set", "heads=2",
         "--set", "batch_size=10", "--set", "warmup_epochs=0", "--set", "amp=no")  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command(tmp_path: Path) -> Any:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        with ZipFile(tmp_path / f"cifar10-{split}.zip", "w") as archive:
            for name in CIFAR10_CLASSES:
                for number in range(2):
                    picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                    Image.fromarray(picture).save(tmp_path / "a.png")
                    archive.write(tmp_path / "a.png", f"{split}/{name}/{number}.png")

    def call(output: Path, *more: object) -> None:
        cifar10.main(
            ["--data", str(tmp_path / "cifar10-train.zip"),
             "--test", str(tmp_path / "cifar10-test.zip"), "--output", str(output),
             "--device", "cpu", "--threads", "1", *SMALL, *map(str, more)]
        )  # fmt: skip

    return call


def test_a_stopped_run_goes_on_and_gives_a_model(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    command(whole, "--epochs", 3)
    train = cifar10.Cifar10Training.epoch

    def stops(self: Any, number: int) -> Any:
        if number == 2:
            raise KeyboardInterrupt
        return train(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(cifar10.Cifar10Training, "epoch", stops)
        with pytest.raises(KeyboardInterrupt):
            command(parts, "--epochs", 3)
    assert not parts.exists()
    with pytest.raises(OutputExistsError, match="--resume"):
        command(parts, "--epochs", 3)
    with pytest.raises(ConfigError, match="epochs 3 there, 4 now"):
        command(parts, "--epochs", 4, "--resume")
    capsys.readouterr()
    command(parts, "--epochs", 3, "--resume")
    said = capsys.readouterr().out
    assert "epoch 3/3" in said
    assert "epoch 2/3" not in said

    state, card = read_checkpoint(parts)
    for name, value in read_checkpoint(whole)[0].items():
        assert torch.equal(value, state[name]), name
        assert value.dtype == torch.float16
    assert json.loads(card["recipe"])["width"] == 16
    assert "20 images of train" in card["data"]
    with (tmp_path / "parts" / "log.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2"]
    model = load_model(parts)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    cfg: Any = model.pretrained_cfg
    assert cfg["mean"] == (0.4914, 0.4822, 0.4465)


def test_goes_on_from_weights(command: Any, tmp_path: Path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    command(first, "--epochs", 1)
    command(second, "--epochs", 1, "--init", first, "--set", "lr=1e-9", "--set", "min_lr=0.0")
    before, after = read_checkpoint(first)[0], read_checkpoint(second)[0]
    assert all(torch.allclose(before[k], v, atol=1e-3) for k, v in after.items())
    assert "weights " in read_checkpoint(second)[1]["from"]


def test_refuses_before_any_work(command: Any, tmp_path: Path) -> None:
    taken = tmp_path / "taken.safetensors"
    taken.write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        command(taken, "--epochs", 1)
    with pytest.raises(ConfigError, match="heads"):
        command(tmp_path / "x.safetensors", "--set", "heads=3")
    assert taken.read_bytes() == b"mine"
