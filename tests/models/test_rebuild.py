"""A model is described so that it can be built again, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import tokenred as tr
from tokenred.core.errors import CheckpointError
from tokenred.models.lvvit import LVViT, lvvit_s
from tokenred.models.rebuild import build_base, describe_base, weightless

TINY: dict[str, Any] = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3}
MODELS = {
    "LVViT": lambda: LVViT(**TINY, num_classes=5, in_chans=1, mlp_ratio=2.0),
    "LVViT, any size": lambda: LVViT(**TINY, dynamic_img_size=True),
    "LVViT, all tokens": lambda: LVViT(**TINY, num_classes=0, global_pool=""),
    "lvvit_s": lambda: lvvit_s(num_classes=5, img_size=64, in_chans=4),
    "lvvit_s, narrow": lambda: lvvit_s(**TINY, dynamic_img_size=True),
    "timm": lambda: timm.create_model("test_vit", num_classes=3, in_chans=1),
    "timm, any size": lambda: timm.create_model("test_vit", dynamic_img_size=True),
    "timm, no pooling": lambda: timm.create_model("test_vit", global_pool=""),
    "own": lambda: VisionTransformer(**TINY, patch_size=8, class_token=False, global_pool="avg"),
}


@pytest.mark.parametrize("name", MODELS)
def test_round_trip(name: str) -> None:
    with weightless():
        model: Any = MODELS[name]()
        description = describe_base(model)
        assert description is not None
        again: Any = build_base(description)
    assert type(again) is type(model)
    assert repr(again) == repr(model)
    assert again.patch_embed.img_size == model.patch_embed.img_size
    assert again.dynamic_img_size == model.dynamic_img_size
    assert again.global_pool == model.global_pool
    # timm from 1.0.16 on has it.
    assert getattr(again, "in_chans", None) == getattr(model, "in_chans", None)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes


def test_a_reduced_lvvit_needs_no_base(tmp_path: Any) -> None:
    reduced = tr.wrap(LVViT(**TINY, num_classes=5).eval(), tr.strategy("gtp", P=1, M=2))
    loaded = tr.load(tr.save(reduced, tmp_path / "m.safetensors"))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images), reduced(images))


def test_what_no_description_fits() -> None:
    model = LVViT(**TINY)
    model.norm = nn.LayerNorm(24, eps=1e-3)
    assert describe_base(model) is None
    with pytest.raises(CheckpointError, match="'timm' or 'VisionTransformer' or 'LVViT'"):
        build_base({"kind": "Swin"})
