"""Models and data from references, and when they are the same."""

from __future__ import annotations

import copy
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import tokenred as tr
from tokenred.analysis.measure.machine import weights_digest
from tokenred.analysis.study.loading import (
    content_of,
    data_identity,
    load_base,
    model_identity,
    open_data,
    precision_of,
)
from tokenred.analysis.study.refs import read_data, read_model
from tokenred.core.errors import ConfigError
from tokenred.models import load_model


def test_precision() -> None:
    assert precision_of(None) == (None, None)
    assert precision_of("float64") == (torch.float64, None)
    assert precision_of("amp:bfloat16") == (None, torch.bfloat16)
    for text in ("float8", "amp:float32", "bf16"):
        with pytest.raises(ConfigError, match=f"got '{text}'"):
            precision_of(text)


def test_random_weights_are_the_same_at_every_load() -> None:
    ref = read_model({"spec": "digits", "pretrained": False})
    state = torch.random.get_rng_state()
    one, two = load_base(ref), load_base(ref)
    assert weights_digest(one) == weights_digest(two)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_saved_model_brings_its_learned_parts(tmp_path: Path, digits: nn.Module) -> None:
    reduced = tr.wrap(digits, tr.strategy("gtp", P=4))
    tr.save(reduced, tmp_path / "a.safetensors")
    loaded = load_base(read_model(tmp_path / "a.safetensors"))
    assert isinstance(loaded, tr.ReducedViT)
    assert load_base(read_model(reduced)) is reduced


def _rescaled(model: Any) -> None:
    model.blocks[0].attn.scale *= 0.25


def _half_the_heads(model: Any) -> None:
    for block in model.blocks:
        block.attn.num_heads = 1


def _pooled(model: Any) -> None:
    model.global_pool = "avg"


def _other_eps(model: Any) -> None:
    model.norm.eps = 1e-2


def _other_activation(model: Any) -> None:
    model.blocks[0].mlp.act = nn.ReLU()


def _other_weight(model: Any) -> None:
    model.head.bias.data[0] += 1


def _hooked(model: Any) -> None:
    model.blocks[0].register_forward_hook(lambda *given: given[-1] * 2)


def _patched(model: Any) -> None:
    model.forward_head = lambda x, **_: x[:, 1, :10]


CHANGES = [_rescaled, _half_the_heads, _pooled, _other_eps]
CHANGES += [_other_activation, _other_weight, _hooked, _patched]


@pytest.mark.parametrize("change", CHANGES)
def test_another_model_has_another_identity(digits: nn.Module, change: Any) -> None:
    before = model_identity(digits)
    other = load_model("digits")
    change(other)
    assert model_identity(other) != before
    again = load_model("digits")
    change(again)
    assert model_identity(again) == model_identity(other)


def test_the_same_model_keeps_its_identity(digits: Any) -> None:
    one = model_identity(digits)
    assert model_identity(load_model("digits")) == one
    assert model_identity(copy.deepcopy(digits).train()) == one
    with torch.no_grad():
        tr.wrap(digits, "gtp").run_with_trace(torch.zeros(1, 3, 32, 32))
    assert model_identity(digits) == one
    # The same weights behind another preprocessing, and with learned parts.
    assert model_identity(load_model("digits", mean=(0.5,) * 3, std=(0.5,) * 3)) != one
    assert model_identity(tr.wrap(digits, "gtp")) != one


def folder(place: Path, colour: int = 0, names: tuple[str, ...] = ("a", "b")) -> Path:
    for label in range(10):
        for name in names:
            path = place / str(label) / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (colour, label, 0)).save(path)
    return place


def identity(source: object, model: nn.Module) -> str:
    ref = read_data(source, None, None)
    data = open_data(ref, model)
    return data_identity(ref, data, content_of(data))


def test_identity_of_folders(tmp_path: Path, digits: nn.Module) -> None:
    one = identity(folder(tmp_path / "one"), digits)
    assert identity(folder(tmp_path / "copy"), digits) == one
    assert identity(folder(tmp_path / "more", names=("a", "b", "c")), digits) != one
    assert identity(folder(tmp_path / "other", names=("a", "c")), digits) != one


def test_identity_of_archives(tmp_path: Path, digits: nn.Module) -> None:
    found = []
    for number, colour in enumerate((0, 0, 200)):
        path = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for image in sorted(folder(tmp_path / str(colour), colour).rglob("*.png")):
                info = zipfile.ZipInfo(str(image.relative_to(tmp_path / str(colour))))
                archive.writestr(info, image.read_bytes())
        found.append(identity(path, digits))
    assert found[0] == found[1] != found[2]


def test_identity_of_datasets(tmp_path: Path, digits: nn.Module) -> None:
    def opened(colour: int) -> str:
        place = folder(tmp_path / str(colour), colour)
        return identity(tr.data.open_dataset(place), digits)

    assert opened(1) == opened(1) != opened(2)
    assert identity("digits", digits) == identity("digits", digits)
