from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from PIL import Image

from tests.shared import shared_path
from tokenred.core.errors import ConfigError, DataError
from tokenred.data import eval_transform, make_loader, open_dataset
from tokenred.models import load_model
from tokenred.training.cifar10_loop import Cifar10Training, accuracy, load_pixels
from tokenred.training.cifar10_recipe import Cifar10Recipe

CPU = torch.device("cpu")


def recipe(**changes: Any) -> Cifar10Recipe:
    small = {"patch": 8, "width": 16, "depth": 2, "heads": 2, "epochs": 2, "batch_size": 16,
             "warmup_epochs": 1, "amp": "no"}  # fmt: skip
    return Cifar10Recipe(**(small | changes))


def pixels(count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 10


def weights(training: Cifar10Training) -> list[torch.Tensor]:
    both = (training.model, training.ema.module)
    return [value for model in both for value in model.state_dict().values()]


@pytest.mark.parametrize("amp", ["no", "bf16"])
def test_goes_on_to_the_same_weights(amp: str) -> None:
    # RandAugment, erasing, mixing, stochastic depth, an average: all that could go astray.
    whole = Cifar10Training(recipe(amp=amp), pixels())
    first = whole.epoch(0)
    kept = torch.load(_saved(whole.state_dict()), weights_only=True)
    whole.epoch(1)
    torch.manual_seed(123)  # as if in another process
    resumed = Cifar10Training(recipe(amp=amp), pixels())
    resumed.load_state_dict(kept)
    resumed.epoch(1)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    assert first["loss"] > 0


def _saved(state: dict[str, Any]) -> Any:
    buffer = BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


def test_learns_to_tell_colours_apart() -> None:
    labels = torch.arange(40) % 10
    shades = torch.stack((labels * 25, 225 - labels * 25, labels % 2 * 200), dim=1)
    images = shades[:, :, None, None].expand(-1, -1, 32, 32).byte()
    plain = recipe(operations=0, erasing=0.0, mixup=0.0, cutmix=0.0, drop_path=0.0, epochs=25,
                   batch_size=20, lr=1e-2, ema=0.5, warmup_epochs=0)  # fmt: skip
    training = Cifar10Training(plain, (images, labels))
    before = accuracy(training.ema.module, (images, labels), training.augment)
    losses = [training.epoch(number)["loss"] for number in range(25)]
    after = accuracy(training.ema.module, (images, labels), training.augment)
    assert losses[-1] < 0.8 * losses[0]
    assert after >= before + 0.3


def test_begins_with_given_weights() -> None:
    donor = Cifar10Training(recipe(seed=7), pixels())
    taken = Cifar10Training(recipe(), pixels(), init=dict(donor.model.state_dict()))
    assert taken.began_from == donor.began_from != Cifar10Training(recipe(), pixels()).began_from


def test_refuses_less_than_a_batch() -> None:
    with pytest.raises(ConfigError, match="one batch of 16, got 9"):
        Cifar10Training(recipe(), pixels(9))


def test_refuses_other_images(tmp_path: Path) -> None:
    path = tmp_path / "cifar10-test.zip"
    with ZipFile(path, "w") as archive:
        for name, side in (("cat", 32), ("dog", 28)):
            Image.new("RGB", (side, side)).save(tmp_path / "a.png")
            archive.write(tmp_path / "a.png", f"test/{name}/0.png")
    with pytest.raises(DataError, match=r"dog.*\(3, 28, 28\)"):
        load_pixels(str(path), "test", CPU)


def test_sees_what_evaluation_sees() -> None:
    path = shared_path("data", "cifar10-test.zip")
    model = load_model(shared_path("models", "vit_cifar10_patch4.safetensors"))
    data = open_dataset(
        f"cifar10:{path}", split="test", transform=eval_transform(model, data="cifar10")
    )
    images, _, index = next(iter(make_loader(data, 4)))
    training = Cifar10Training(recipe(), pixels())
    whole = open_dataset(f"cifar10:{path}", split="test")
    raw = torch.stack([(whole[int(i)][0] * 255).round().byte() for i in index])
    assert torch.allclose(training.augment.normalise(raw), images, atol=1e-5)
