"""The script that trains the embedded weights, on a few dozen images."""

from __future__ import annotations

import runpy
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image

from tokenred.core.errors import OutputExistsError
from tokenred.data.classes import CIFAR10_CLASSES
from tokenred.models import cifar10_card, load_model, read_checkpoint

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "train_embedded.py"))


@pytest.mark.parametrize("recipe", ["digits", "patch4"])
def test_writes_a_model_that_loads(recipe: str, tmp_path: Path) -> None:
    options = ["--device", "cpu", "--threads", "1", "--limit", "10", "--set", "batch_size=10",
               "--set", "epochs=1", "--set", "warmup_epochs=0", "--set", "amp=no"]  # fmt: skip
    if recipe != "digits":
        rng = np.random.default_rng(0)
        with ZipFile(tmp_path / "cifar10.zip", "w") as archive:
            for name in CIFAR10_CLASSES:
                picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(picture).save(tmp_path / "a.png")
                for split in ("train", "test"):
                    archive.write(tmp_path / "a.png", f"{split}/{name}/0.png")
        options += [
            "--data",
            str(tmp_path / "cifar10.zip"),
            "--test",
            str(tmp_path / "cifar10.zip"),
        ]
    output = tmp_path / "weights.safetensors"
    SCRIPT["main"]([recipe, "--output", str(output), *options])

    state, card = read_checkpoint(output)
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert card["recipe"].startswith('{"epochs": 1,')
    model = load_model(output)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    mean = 0.3057 if recipe == "digits" else 0.4914
    assert model.pretrained_cfg["mean"][0] == mean
    with pytest.raises(OutputExistsError):
        SCRIPT["main"]([recipe, "--output", str(output), *options])
    if recipe == "digits":
        return
    SCRIPT["main"]([recipe, "--output", str(tmp_path / "b.safetensors"), "--init", str(output),
                    *options, "--set", "lr=1e-9", "--set", "min_lr=0"])  # fmt: skip
    later, card = read_checkpoint(tmp_path / "b.safetensors")
    assert all(torch.allclose(state[name], value, atol=1e-3) for name, value in later.items())
    assert card["from"].startswith("weights ")


def test_the_recipe_is_of_the_embedded_model() -> None:
    assert str(SCRIPT["RECIPES"]["patch4"].config).replace("'", '"') == cifar10_card()["config"]
