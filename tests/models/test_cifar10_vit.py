from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from timm.data import resolve_model_data_config

import tokenred as tr
from tokenred.data.cifar10 import CIFAR10_CLASSES, CIFAR10_MEAN
from tokenred.data.classes import class_names
from tokenred.models import cifar10_card, cifar10_vit, load_model

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_the_file_is_small_and_describes_itself() -> None:
    card = cifar10_card()
    assert json.loads(card["config"])["patch_size"] == 4
    assert float(card["top1"]) > 74
    assert "50000" in card["data"]
    assert len((files("tokenred.models") / "cifar10_vit.safetensors").read_bytes()) < 4_000_000


def test_it_is_ready_for_use() -> None:
    model = load_model("cifar10_vit")
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert (model.patch_embed.num_patches, len(model.blocks)) == (64, 8)
    assert class_names(model) == CIFAR10_CLASSES
    config = resolve_model_data_config(model)
    assert config["input_size"] == (3, 32, 32)
    assert config["mean"] == CIFAR10_MEAN
    assert tr.wrap(model, "gtp")(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_without_weights_it_is_random() -> None:
    assert not torch.equal(cifar10_vit(False).pos_embed, cifar10_vit(False).pos_embed)
    assert not torch.equal(load_model("cifar10_vit").pos_embed, cifar10_vit(False).pos_embed)


def test_it_names_the_test_images_as_its_card_says() -> None:
    folder = Path(os.environ.get("TOKENRED_DATA", SHARED))
    if not (folder / "cifar10-test.zip").exists():
        pytest.skip(f"no cifar10-test.zip in {folder}; set TOKENRED_DATA to its folder")
    found = tr.evaluate(load_model("cifar10_vit"), f"cifar10:{folder / 'cifar10-test.zip'}")
    assert found.top1 == pytest.approx(float(cifar10_card()["top1"]), abs=0.05)
