"""What is not there is refused, and nothing that is; see also ``test_refusals.py``."""

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import timm

from tests.cli.conftest import Run
from tokenred.cli import absent
from tokenred.cli.absent import refuse_devices, refuse_models, refuse_unreachable
from tokenred.core.errors import CheckpointError, ConfigError


def test_all_models_of_timm_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    names = sorted({*timm.models._registry._model_entrypoints, "digits", "DIGITS", "cifar10_vit"})
    assert len(names) > 1000
    monkeypatch.delitem(sys.modules, "timm")
    refuse_models({"model": (*names, "vit_tiny_patch16_224.augreg_in21k", "hf-hub:some/model")}, ())


@pytest.mark.skipif(sys.platform != "linux", reason="drivers are looked for on Linux")
@pytest.mark.parametrize("driver", [True, False])
def test_a_gpu_needs_a_driver(driver: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        if not driver:
            raise OSError(name)

    asked = list[str]()
    monkeypatch.setattr(absent.ctypes, "CDLL", load)
    monkeypatch.setattr(absent.Path, "exists", lambda _: False)
    monkeypatch.setattr("tokenred.core.tensors.check_device", asked.append)
    with nullcontext() if driver else pytest.raises(ConfigError, match="a device of this machine"):
        refuse_devices({"device": "cuda:1"}, ())
    assert asked == ["cuda:1"] * driver
    with pytest.raises(ConfigError, match="'mps'"):
        refuse_devices({"devices": ("cpu", "mps")}, ())
    refuse_devices({"device": "cuda", "engine": "ray"}, ())


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cache of a machine without a network."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("tokenred.data.places.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "hf-hub:timm/deit_tiny_patch16_224"])
def test_published_weights_need_a_network_or_a_cache(no_network: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be reached"):
        refuse_unreachable(name)
    (no_network / "models--timm--deit_tiny_patch16_224.fb_in1k").mkdir()
    refuse_unreachable(name)
    for other in ("digits", "lvvit_s", "local-dir:here", "a/b.safetensors", "mine"):
        refuse_unreachable(other)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("compare --model deit_tiny_patch16_224 --data digits", "pass --checkpoint FILE"),
        (
            "ablate -a P=4 --model deit_tiny_patch16_224 --data digits",
            "--random-weights for random weights",
        ),
        ("finetune -o run -s gtp --model deit_tiny_patch16_224 --data digits", "be reached"),
        ("agreement --model deit_tiny_patch16_224 --data digits", "be reached"),
        ("show --model deit_tiny_patch16_224 --data digits", "be reached"),
        ("export --model deit_tiny_patch16_224 -o m.onnx", "be reached"),
        ("compare --random-weights --model hf-hub:a/b", "from the hub"),
        ("bench --model hf-hub:a/b", "from the hub"),
        ("reproduce --imagenet digits -m DeiT-S", "Pass --checkpoint NAME=FILE"),
        ("reproduce --imagenet digits", "expected weights of a model"),
    ],
)
def test_commands_say_so_in_their_own_words(
    run: Run, no_network: Path, line: str, told: str
) -> None:
    assert told in run(*line.split()).refusal
