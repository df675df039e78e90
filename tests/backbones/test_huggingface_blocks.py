"""The blocks of Hugging Face vision towers, opened."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import tokenred as tr
from tests.backbones.steps import in_steps
from tokenred.attention import FusedEngine, PlainEngine
from tokenred.core.errors import BackboneError

pytest.importorskip("transformers")

from tests.backbones.hf_models import (
    FORMS,
    NOTHING,
    SOME,
    agree,
    answer,
    gradients,
    images_for,
    tower_of,
    with_dropout,
)


@pytest.mark.parametrize("form", FORMS)
def test_opened(form: str, build: Any, untouched: Any, same: Any) -> None:
    model = build(form).double().eval()
    reduced = tr.wrap(model, tr.Strategy("Random", score_mods=(untouched,)))
    images = images_for(model).double()
    got, expected = reduced(images), answer(model(images))
    same(got, expected, 1e-12)
    agree(gradients(reduced, got), gradients(model, expected), 1e-10)
    with torch.no_grad():
        state, _ = reduced._start(images)
        for layer, block in enumerate(reduced.backbone.blocks):
            for engine in (PlainEngine(), FusedEngine()):
                stepped, whole = in_steps(block, state, layer, engine)
                same(stepped - state.x, whole - state.x, 1e-12)


def test_eager_attention(build: Any, same: Any) -> None:
    model = build("Dinov2Model", attn_implementation="eager").eval()
    images = images_for(model)
    same(tr.wrap(model, NOTHING)(images), model(images).pooler_output)


@pytest.mark.parametrize("form", ["ViTModel", "Dinov2Model", "CLIPVisionModel"])
def test_dropout_when_opened(form: str, lively: Any, untouched: Any) -> None:
    model = lively(with_dropout(form, 0.3)).train()
    reduced = tr.wrap(model, tr.Strategy("Random", score_mods=(untouched,)))
    first, second = reduced(images_for(model)), reduced(images_for(model))
    assert not torch.equal(first, second)
    reduced.eval()
    assert not model.training
    assert torch.equal(reduced(images_for(model)), reduced(images_for(model)))


def test_gradient_checkpointing(build: Any, same: Any) -> None:
    outputs, grads = [], []
    for saves in (False, True):
        model = build("ViTModel").train()
        if saves:
            # Version 6 is to know the second name only.
            old, new = "gradient_checkpointing_enable", "activation_checkpointing_enable"
            getattr(model, new if hasattr(model, new) else old)({"use_reentrant": False})
        reduced = tr.wrap(model, SOME)
        assert reduced.backbone.checkpoint_blocks == saves
        outputs.append(reduced(images_for(model)))
        grads.append(gradients(reduced, outputs[-1]))
    same(outputs[1], outputs[0])
    agree(grads[1], grads[0], 1e-5)
    assert not reduced.eval().backbone.checkpoint_blocks


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("CLIPEncoderLayer holds adapter", lambda b: b.add_module("adapter", nn.Identity())),
        ("CLIPAttention holds q_norm", lambda b: b.self_attn.add_module("q_norm", nn.Identity())),
        ("none of query, q_proj", lambda b: delattr(b.self_attn, "q_proj")),
        ("attention MultiheadAttention", lambda b: setattr(b, "self_attn", _attention())),
    ],
)
def test_changed_blocks_are_refused(message: str, change: Any, build: Any) -> None:
    model = build("CLIPVisionModel")
    change(tower_of(model).encoder.layers[0])
    with pytest.raises(BackboneError, match=message):
        tr.wrap(model, NOTHING)


def test_other_blocks_are_refused(build: Any) -> None:
    model = build("Dinov2Model")
    model.encoder.layer[0] = nn.TransformerEncoderLayer(32, 4)
    with pytest.raises(BackboneError, match=r"TransformerEncoderLayer.*Dinov2Layer"):
        tr.wrap(model, NOTHING)
    model.encoder.layer = nn.ModuleList()
    with pytest.raises(BackboneError, match="has no blocks"):
        tr.wrap(model, NOTHING)


def _attention() -> nn.Module:
    return nn.MultiheadAttention(32, 4)
