from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from tests.shared import shared_path
from tokenred.core.errors import CheckpointError, ConfigError, UnknownNameError
from tokenred.models import load_model, save_checkpoint

CONFIG = {
    "img_size": 16,
    "patch_size": 8,
    "embed_dim": 8,
    "depth": 1,
    "num_heads": 1,
    "num_classes": 3,
}


def saved(path: Path, **metadata: Any) -> tuple[Path, VisionTransformer]:
    model = VisionTransformer(**CONFIG).eval()
    save_checkpoint(path, model.state_dict(), {"config": CONFIG, **metadata})
    return path, model


def test_a_checkpoint_that_describes_itself(tmp_path: Path) -> None:
    path, model = saved(tmp_path / "w.safetensors")

    loaded = load_model(path)

    images = torch.rand(2, 3, 16, 16)
    assert not loaded.training
    assert torch.equal(loaded(images), model(images))
    cfg: Any = loaded.pretrained_cfg
    assert cfg["input_size"] == (3, 16, 16)
    assert cfg["num_classes"] == 3
    assert "mean" not in cfg


def test_preprocessing_comes_from_the_file_or_the_caller(tmp_path: Path) -> None:
    record = {"mean": [0.1, 0.2, 0.3], "interpolation": "bilinear"}
    path, _ = saved(tmp_path / "w.safetensors", preprocessing=record)

    cfg: Any = load_model(path, std=(1, 2, 3)).pretrained_cfg
    own: Any = load_model(path, mean=(0.9, 0.9, 0.9)).pretrained_cfg

    assert (cfg["mean"], cfg["std"]) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert cfg["interpolation"] == "bilinear"
    assert own["mean"] == (0.9, 0.9, 0.9)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "metadata entry 'config'"),
        ("{", "expected JSON"),
        ({**CONFIG, "color": 1}, "arguments of timm's VisionTransformer"),
        ({**CONFIG, "num_heads": 3}, "arguments of timm's VisionTransformer"),
        ({**CONFIG, "depth": 2}, "missing: blocks.1"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path: Path, config: Any, message: str) -> None:
    state = VisionTransformer(**CONFIG).state_dict()
    path = tmp_path / "w.safetensors"
    save_checkpoint(path, state, {} if config is None else {"config": config})

    with pytest.raises(CheckpointError, match=message):
        load_model(path)


def test_another_number_of_classes_than_the_files_is_refused(tmp_path: Path) -> None:
    path, _ = saved(tmp_path / "w.safetensors")

    assert isinstance(load_model(path, num_classes=3), nn.Module)
    with pytest.raises(CheckpointError, match=r"expected 5 classes, but w\.safetensors has 3"):
        load_model(path, num_classes=5)


def test_a_timm_model_with_a_checkpoint(tmp_path: Path) -> None:
    source = timm.create_model("vit_tiny_patch16_224", num_classes=4).eval()
    torch.save({"model": source.state_dict()}, tmp_path / "w.pth")

    with pytest.raises(CheckpointError, match="Pass num_classes=4"):
        load_model("vit_tiny_patch16_224", checkpoint=tmp_path / "w.pth")
    model = load_model("vit_tiny_patch16_224", checkpoint=tmp_path / "w.pth", num_classes=4)

    assert not model.training
    assert torch.equal(model.get_parameter("head.weight"), source.head.weight)


def test_a_timm_model_without_weights() -> None:
    model = load_model("vit_tiny_patch16_224", pretrained=False, mean=(0.1, 0.1, 0.1))

    cfg: Any = model.pretrained_cfg
    assert cfg["mean"] == (0.1, 0.1, 0.1)
    assert cfg["std"] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    "failure", [OSError("no route to host"), RuntimeError("No pretrained weights exist")]
)
def test_weights_that_cannot_be_had_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> nn.Module:
        raise failure

    monkeypatch.setattr(timm, "create_model", fail)

    with pytest.raises(CheckpointError, match=r"checkpoint= .* or pretrained=False") as caught:
        load_model("vit_tiny_patch16_224")
    assert str(failure) in str(caught.value)


def test_unknown_names_get_hints() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'deit_small_patch16_224'"):
        load_model("diet_small_patch16_224")
    with pytest.raises(UnknownNameError, match=r"'digits'"):
        load_model("digit")
    with pytest.raises(UnknownNameError, match="weights of deit_small_patch16_224 'nope'"):
        load_model("deit_small_patch16_224.nope")


def test_contradictions_are_refused(tmp_path: Path) -> None:
    path, _ = saved(tmp_path / "w.safetensors")

    with pytest.raises(ConfigError, match="one source of weights"):
        load_model("digits", checkpoint=path, pretrained=True)
    with pytest.raises(ConfigError, match="is a checkpoint itself, got also checkpoint="):
        load_model(path, checkpoint=path)
    with pytest.raises(ConfigError, match="is a checkpoint itself, got also pretrained=False"):
        load_model(path, pretrained=False)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"num_classes": -1}, "num_classes"),
        ({"num_classes": True}, "num_classes"),
        ({"pretrained": 2}, "pretrained"),
        ({"use_ema": "perhaps"}, "use_ema"),
        ({"use_ema": True}, "expected a checkpoint="),
        ({"mean": (1,)}, "mean"),
        ({"std": (1, 1, -1)}, "std"),
    ],
)
def test_arguments_are_checked_first(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        load_model("no_such_model", **options)


def test_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    for name in ("gone.safetensors", "gone.pth", "folder/gone"):
        with pytest.raises(CheckpointError, match="found none"):
            load_model(str(tmp_path / name))
    with pytest.raises(CheckpointError, match="found none"):
        load_model("vit_tiny_patch16_224", checkpoint=tmp_path / "gone.pth")
    with pytest.raises(ConfigError, match="got Identity"):
        load_model(nn.Identity())  # type: ignore[arg-type]


def test_the_shared_cifar10_model() -> None:
    model = load_model(shared_path("models", "vit_cifar10_patch4.safetensors"))

    assert isinstance(model, VisionTransformer)
    assert model.patch_embed.num_patches == 64
    cfg: Any = model.pretrained_cfg
    assert json.dumps(cfg["input_size"]) == "[3, 32, 32]"
