"""The script that trains the embedded weights, on a few dozen images."""

import runpy
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image

from tokenred.core.errors import OutputExistsError
from tokenred.data.classes import CIFAR10_CLASSES
from tokenred.models import load_model, model_card, read_checkpoint

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "train_embedded.py"))


def test_a_model_is_written_that_loads_and_trains_further(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data, output = tmp_path / "cifar10.zip", tmp_path / "weights.safetensors"
    with ZipFile(data, "w") as archive:
        for name in CIFAR10_CLASSES:
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "a.png")
            for split in ("train", "test"):
                archive.write(tmp_path / "a.png", f"{split}/{name}/0.png")
    options = ["--device", "cpu", "--threads", "1", "--limit", "10", "--set", "batch_size=10",
               "--set", "epochs=1", "--set", "warmup_epochs=0", "--set", "amp=no",
               "--data", str(data), "--test", str(data)]  # fmt: skip
    SCRIPT["main"](["patch4", "--output", str(output), *options])
    state, card = read_checkpoint(output)
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert card["recipe"].startswith('{"epochs": 1,')
    model = load_model(output)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert model.pretrained_cfg["mean"][0] == 0.4914
    with pytest.raises(OutputExistsError):
        SCRIPT["main"](["patch4", "--output", str(output), *options])
    SCRIPT["main"](["patch4", "--output", str(tmp_path / "b.safetensors"), "--init", str(output),
                    *options, "--set", "lr=1e-9", "--set", "min_lr=0"])  # fmt: skip
    later, card = read_checkpoint(tmp_path / "b.safetensors")
    assert all(torch.allclose(state[name], value, atol=1e-3) for name, value in later.items())
    assert card["from"].startswith("weights ")


def test_the_recipe_is_of_the_embedded_model() -> None:
    assert (
        str(SCRIPT["RECIPES"]["patch4"].config).replace("'", '"')
        == model_card("cifar10_vit")["config"]
    )
