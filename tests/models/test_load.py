"""From a name or a path to a model, or a clear refusal."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import tokenred as tr
from tokenred.core.errors import CheckpointError, ConfigError, UnknownNameError
from tokenred.models import load_model, save_checkpoint

CONFIG = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 1}
CONFIG["num_classes"] = 3


def saved(path: Path, **metadata: Any) -> tuple[Path, VisionTransformer]:
    model = VisionTransformer(**CONFIG).eval()
    save_checkpoint(path, model.state_dict(), {"config": CONFIG, **metadata})
    return path, model


def test_a_checkpoint_that_describes_itself(tmp_path: Path) -> None:
    record = {"mean": [0.1, 0.2, 0.3], "interpolation": "bilinear"}
    path, model = saved(tmp_path / "w.safetensors", preprocessing=record)
    loaded: Any = load_model(path, std=(1, 2, 3), num_classes=3)
    images = torch.rand(2, 3, 16, 16)
    assert not loaded.training
    assert torch.equal(loaded(images), model(images))
    cfg = loaded.pretrained_cfg
    assert (cfg["input_size"], cfg["num_classes"]) == ((3, 16, 16), 3)
    # Preprocessing comes from the file or the caller.
    assert (cfg["mean"], cfg["std"]) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert cfg["interpolation"] == "bilinear"
    assert load_model(path, mean=(0.9, 0.9, 0.9)).pretrained_cfg["mean"] == (0.9, 0.9, 0.9)
    with pytest.raises(CheckpointError, match=r"expected 5 classes, but w\.safetensors has 3"):
        load_model(path, num_classes=5)
    assert "mean" not in load_model(saved(tmp_path / "plain.safetensors")[0]).pretrained_cfg


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "hf-hub:timm/nobody"])
def test_without_a_network_the_message_comes_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def refuse(place: tuple[str, int], timeout: float) -> None:
        asked.append(place)
        raise OSError("no route")

    def create(name: str, pretrained: bool) -> VisionTransformer:
        return VisionTransformer(**CONFIG)

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("tokenred.data.places.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(CheckpointError, match=r"cannot be reached\. Without a network"):
        load_model(name)
    if name.startswith("hf-hub:"):  # which has the model's configuration, too
        with pytest.raises(CheckpointError, match="from the hub"):
            load_model(name, pretrained=False)
    else:
        load_model(name, pretrained=False)
    monkeypatch.setattr("tokenred.data.places.getproxies", lambda: {"https": "proxy:1"})
    load_model(name)  # who knows what a proxy reaches
    assert len(asked) == 1 + name.startswith("hf-hub:")


def test_cached_weights_need_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: VisionTransformer(**CONFIG))
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("was asked"))
    (tmp_path / "models--timm--deit_tiny_patch16_224.fb_in1k").mkdir()
    load_model("deit_tiny_patch16_224")


def test_a_decoder_beside_the_model_is_left_alone(tmp_path: Path) -> None:
    model, path = VisionTransformer(**CONFIG).eval(), tmp_path / "w.safetensors"
    beside = {"decoder.0.weight": torch.ones(2), "decoded": torch.ones(1)}
    save_checkpoint(path, model.state_dict() | beside, {"config": CONFIG})
    with pytest.raises(CheckpointError, match="unexpected: decoded"):
        load_model(path)
    del beside["decoded"]
    save_checkpoint(path, model.state_dict() | beside, {"config": CONFIG}, overwrite=True)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(load_model(path)(images), model(images))


def test_a_reduced_model_is_called_one(tmp_path: Path) -> None:
    path = tr.save(tr.wrap(load_model("digits"), "tome:r=4"), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"w.safetensors holds a reduced .*tokenred\.load"):
        load_model(path)
    assert load_model("digits", checkpoint=path)


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


def test_a_timm_model_with_a_checkpoint_or_without_weights(tmp_path: Path) -> None:
    source = timm.create_model("test_vit", num_classes=4).eval()
    torch.save({"model": source.state_dict()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="Pass num_classes=4"):
        load_model("test_vit", checkpoint=tmp_path / "w.pth")
    model = load_model("test_vit", checkpoint=tmp_path / "w.pth", num_classes=4)
    assert not model.training
    assert torch.equal(model.get_parameter("head.weight"), source.head.weight)
    cfg: Any = load_model("test_vit", pretrained=False, mean=(0.1, 0.1, 0.1)).pretrained_cfg
    assert (cfg["mean"], cfg["std"]) == ((0.1, 0.1, 0.1), (0.5, 0.5, 0.5))


def test_weights_that_are_not_available_say_what_to_do() -> None:
    with pytest.raises(CheckpointError, match=r"No pretrained.*checkpoint=.*pretrained=False"):
        load_model("lvvit_s")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("diet_small_patch16_224", "Did you mean 'deit_small_patch16_224'"),
        ("digit", "'digits'"),
        ("deit_small", "'deit_small_patch16_224'"),
        ("deit_small_patch16_224.nope", "weights of deit_small_patch16_224 'nope'"),
    ],
)
def test_unknown_names_get_hints(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        load_model(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": -1}, "num_classes"),
        ({"num_classes": True}, "num_classes"),
        ({"pretrained": 2}, "pretrained"),
        ({"use_ema": "perhaps"}, "use_ema"),
        ({"use_ema": True}, "expected a checkpoint="),
        ({"mean": (1,)}, "mean"),
        ({"std": (1, 1, -1)}, "std"),
        ({"checkpoint": "w.pth", "pretrained": True}, "one source of weights"),
        ({"spec": "a.pt", "checkpoint": "w.pth"}, "is a checkpoint itself, got also checkpoint="),
        ({"spec": "a.pt", "pretrained": False}, "itself, got also pretrained=False"),
        ({"spec": nn.Identity()}, "got Identity"),
    ],
)
def test_arguments_are_checked_first(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_model(**({"spec": "no_such_model"} | options))


def test_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    for name in ("gone.safetensors", "gone.pth", "folder/gone"):
        with pytest.raises(CheckpointError, match="found none"):
            load_model(str(tmp_path / name))
    with pytest.raises(CheckpointError, match="found none"):
        load_model("test_vit", checkpoint=tmp_path / "gone.pth")
