from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tokenred.core.errors import OutputExistsError
from tokenred.data import eval_transform, open_dataset
from tokenred.models import digits_vit, load_model
from tokenred.training import digits
from tokenred.training.digits import Recipe, accuracy, load_split, main, train

QUICK = Recipe(epochs=2, batch_size=8, warmup_epochs=1)


def test_training_sees_what_evaluation_sees() -> None:
    model = digits_vit(pretrained=False)
    data = open_dataset("digits", split="train", transform=eval_transform(model))
    images, labels = load_split("train")

    assert torch.allclose(digits._normalise(images[5:6])[0], data[5][0], atol=1e-6)
    assert labels.tolist() == list(data.labels)


def test_training_changes_the_model_and_repeats_by_seed() -> None:
    images, labels = load_split("train")
    first, second = (train(images[:16], labels[:16], QUICK, progress=False) for _ in range(2))
    torch.manual_seed(QUICK.seed)
    untrained = digits_vit(pretrained=False)

    assert not first.training
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert not torch.equal(
        first.get_parameter("head.weight"), untrained.get_parameter("head.weight")
    )


def test_accuracy_counts() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
    torch.nn.init.zeros_(model[1].weight)
    torch.nn.init.zeros_(model[1].bias)

    assert accuracy(model, torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 0, 2])) == 0.5


def test_the_command_writes_a_checkpoint_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = digits.load_split
    monkeypatch.setattr(digits, "load_split", lambda split: tuple(t[:24] for t in whole(split)))
    out = tmp_path / "w.safetensors"
    before: Any = torch.get_num_threads()

    main(["--out", str(out), "--epochs", "1", "--threads", str(before)])

    assert "held-out top-1" in capsys.readouterr().out
    model = load_model(out)
    cfg: Any = model.pretrained_cfg
    assert cfg["mean"] == (0.3057, 0.3057, 0.3057)
    with pytest.raises(OutputExistsError):
        main(["--out", str(out), "--epochs", "1"])


def test_validation_holds_out_a_part_of_train(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []

    def watch(images: torch.Tensor, *_: Any) -> torch.nn.Module:
        seen.append(len(images))
        return digits_vit(pretrained=False)

    monkeypatch.setattr(digits, "train", watch)
    main(["--validate", "--threads", str(torch.get_num_threads())])

    assert seen == [1197]
    assert "of 240" in capsys.readouterr().out
