"""A model is described so that it can be built again, or not at all."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import tokenred as tr
from tokenred.core.errors import CheckpointError
from tokenred.models.lvvit import LVViT, lvvit_s
from tokenred.models.rebuild import build_base, build_described, describe_base, weightless

TINY: dict[str, Any] = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3}
MODELS = {
    "LVViT": lambda: LVViT(**TINY, num_classes=5, in_chans=1, mlp_ratio=2.0),
    "LVViT, any size": lambda: LVViT(**TINY, dynamic_img_size=True),
    "LVViT, all tokens": lambda: LVViT(**TINY, num_classes=0, global_pool=""),
    "lvvit_s": lambda: lvvit_s(num_classes=5, img_size=64, in_chans=4),
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
    assert repr(again) == repr(model)
    assert again.patch_embed.img_size == model.patch_embed.img_size
    assert again.dynamic_img_size == model.dynamic_img_size
    assert again.global_pool == model.global_pool
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes


def half_as_hot(model: Any) -> None:
    model.blocks[1].attn.scale *= 0.5


def other_norm(model: Any) -> None:
    model.norm.eps = 1e-3


def other_activation(model: Any) -> None:
    model.blocks[0].mlp.act = nn.ReLU()


def dropout(model: Any) -> None:
    model.blocks[0].attn.attn_drop.p = 0.3


def function(model: Any) -> None:
    model.pool = lambda x, pool_type=None: x[:, -1]


PLAIN: dict[str, Any] = {**TINY, "patch_size": 8, "num_classes": 5}
# What repr and shapes do not show: an argument tells it, or nothing does.
CHANGED: dict[str, tuple[dict[str, Any], Any]] = {
    "heads": ({"num_heads": 6}, None),
    "prefix in the pool": ({"global_pool": "avg", "pool_include_prefix": True}, None),
    "padding": ({"dynamic_img_size": True, "dynamic_img_pad": True}, None),
    "dropout by argument": ({"attn_drop_rate": 0.1, "drop_path_rate": 0.2}, None),
    "LayerScale": ({"init_values": 0.3}, None),
    "no positions": ({"pos_embed": "none", "class_token": False, "global_pool": "avg"}, None),
    "no last norm": ({"final_norm": False}, None),
    "a norm against the default": ({"global_pool": "avg", "fc_norm": False}, None),
    **{f.__name__: ({}, f) for f in (half_as_hot, other_norm, other_activation, dropout, function)},
}


@pytest.mark.parametrize(
    ("kind", "name"), [*(("timm", name) for name in CHANGED), ("own", "heads"), ("own", "dropout")]
)
def test_no_other_model_comes_back(name: str, kind: str, tmp_path: Path) -> None:
    arguments, change = CHANGED[name]
    if not arguments.keys() <= inspect.signature(VisionTransformer).parameters.keys():
        pytest.skip("this timm has no such argument")

    def make() -> Any:
        torch.manual_seed(0)
        options = {**PLAIN, **arguments}
        if kind == "timm":
            model: Any = timm.create_model("vit_tiny_patch16_224", **options)
        else:
            model = VisionTransformer(**options)
        for parameter in model.parameters():  # what starts at 0 would hide differences
            parameter.data += torch.randn_like(parameter) * 0.1
        if change is not None:
            change(model)
        return model.eval()

    reduced = tr.wrap(make(), tr.strategy("gtp", P=2, M=2))
    path = tr.save(reduced, tmp_path / "m.safetensors")
    images = torch.randn(2, 3, 32, 32)
    if change is None:
        assert torch.equal(tr.load(path)(images), reduced(images))
    else:
        with pytest.raises(CheckpointError, match="model="):
            tr.load(path)
    assert torch.equal(tr.load(path, model=make())(images), reduced(images))
    other = VisionTransformer(**PLAIN)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"not the one that was saved|do not fit"):
        tr.load(path, model=other)
    assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())


GOOD = {"img_size": [32, 16], "num_heads": 2, "drop_rate": 0, "fc_norm": None, "depth": 8}
WEIGHTS = {str(i): torch.zeros(1) for i in range(8)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("num_heads", v) for v in (0, 1 << 20, True, 2.0, "2", None, [2])],
        *[("drop_rate", v) for v in (-0.1, 2, True, "1")],
        *[("global_pool", v) for v in ("c", 1, ["avg"], None)],
        *[("img_size", v) for v in ([1], [1, 2, 3], [1, 1 << 20], "ab", {"a": 1, "b": 2})],
        *[("qk_norm", v) for v in (2, "perhaps", [True], None)],
        *[("depth", v) for v in (9, True)],
        *[(name, "x") for name in ("block_fn", "norm_layer", "device", "checkpoint")],
    ],
)
def test_arguments_that_a_file_may_not_set(name: str, value: object) -> None:
    description: dict[str, Any] = {"kind": "VisionTransformer", "arguments": GOOD}
    assert len(build_described(description, WEIGHTS, "w")[0].blocks) == 8
    with pytest.raises(CheckpointError, match=f"{name}|blocks"):
        build_described(description | {"arguments": {**GOOD, name: value}}, WEIGHTS, "w")


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"kind": "Swin"}, "'timm' or 'VisionTransformer' or 'LVViT'"),
        ({"kind": "timm", "name": "hf-hub:a/b"}, "one of timm's models"),
        ({"kind": "LVViT", "arguments": [1]}, "by name"),
        ({"kind": "LVViT", "arguments": {"img_size": 40}}, "multiples of 16"),
    ],
)
def test_descriptions_of_no_model(description: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        build_described(description, WEIGHTS, "m.safetensors")
