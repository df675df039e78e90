from __future__ import annotations

import json
from importlib.resources import files

import pytest
import torch
from timm.data import resolve_model_data_config

from tokenred.data import eval_transform, make_loader, open_dataset
from tokenred.models import digits_card, digits_vit
from tokenred.models.digits_config import DIGITS_CONFIG, DIGITS_PREPROCESSING, DIGITS_WEIGHTS


@torch.inference_mode()
def test_it_reads_the_held_out_digits_as_its_card_says() -> None:
    model = digits_vit()
    data = open_dataset("digits", split="test", transform=eval_transform(model))

    right = [
        model(images).argmax(-1) == labels for images, labels, _ in make_loader(data, batch_size=90)
    ]

    top1 = 100 * torch.cat(right).double().mean().item()
    assert top1 >= 97
    # One image in 360 is 0.28: another machine's rounding may tip it.
    assert top1 == pytest.approx(float(digits_card()["top1"]), abs=0.3)


def test_it_is_ready_for_use() -> None:
    model = digits_vit()

    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.patch_embed.num_patches == 64
    assert len(model.blocks) == 8


def test_timm_finds_its_preprocessing() -> None:
    config = resolve_model_data_config(digits_vit(pretrained=False))

    assert config["input_size"] == (3, 32, 32)
    assert config["mean"] == tuple(DIGITS_PREPROCESSING["mean"])
    assert config["std"] == tuple(DIGITS_PREPROCESSING["std"])
    assert config["crop_pct"] == 1.0


def test_without_weights_it_is_random() -> None:
    assert not torch.equal(digits_vit(False).pos_embed, digits_vit(False).pos_embed)


def test_the_file_is_small_and_describes_itself() -> None:
    card = digits_card()

    assert json.loads(card["config"]) == DIGITS_CONFIG
    assert json.loads(card["preprocessing"]) == DIGITS_PREPROCESSING
    assert "1437" in card["data"]
    assert len((files("tokenred.models") / DIGITS_WEIGHTS).read_bytes()) < 2_000_000


@torch.inference_mode()
def test_every_block_matters() -> None:
    model = digits_vit()
    data = open_dataset("digits", split="test", transform=eval_transform(model))
    images, labels, _ = next(iter(make_loader(data, batch_size=200, limit=200)))
    whole = model(images)

    for block in range(len(model.blocks)):
        kept = [b for i, b in enumerate(model.blocks) if i != block]
        shortened = torch.nn.Sequential(*kept)
        tokens = model.norm_pre(model._pos_embed(model.patch_embed(images)))
        logits = model.forward_head(model.norm(shortened(tokens)))
        assert (logits - whole).norm() > 0.03 * whole.norm(), f"block {block} does nothing"
    assert (whole.argmax(-1) == labels).double().mean() > 0.95
