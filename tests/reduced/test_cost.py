"""GMACs: the paper's tables, and what PyTorch counts in the running model."""

from __future__ import annotations

import csv
from functools import cache
from typing import Any

import pytest
import timm
import torch
from timm.layers import SwiGLU
from timm.models.vision_transformer import (
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
    VisionTransformer,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tokenred as tr
from tokenred.analysis.plots.published import GTP_PAPER as TABLES
from tokenred.models.rebuild import weightless
from tokenred.reduced.cost import Cost

BACKBONES = {
    "DeiT-S": "deit_small_patch16_224",
    "DeiT-B": "deit_base_patch16_224",
    "ViT-Medium-GAP": "vit_medium_patch16_gap_256",
}
MEDIUM: dict[str, Any] = {"img_size": 128, "embed_dim": 128, "depth": 4, "num_heads": 4}
FORMS: dict[str, dict[str, Any]] = {
    "map pool": {"global_pool": "map", "class_token": False},
    "map pool of all": {"global_pool": "map", "reg_tokens": 8, "pool_include_prefix": True},
    "map pool of patches": {"global_pool": "map", "reg_tokens": 8},
    "prr pool": {"global_pool": "prr"},
    "no CLS": {"global_pool": "avg", "class_token": False},
    "registers": {"reg_tokens": 8},
    "SwiGLU": {"mlp_layer": SwiGLU, "mlp_ratio": 8 / 3},
    "post-norm": {"block_fn": ResPostBlock},
    "parallel scaling": {"block_fn": ParallelScalingBlock},
    "parallel things": {"block_fn": ParallelThingsBlock},
}
METHODS = {
    "dense": tr.strategy("gtp", P=0),
    "gtp": tr.strategy("gtp", P=8),
    "gtp, early": tr.Strategy("MixedAttn", "mixed", "propagate", tr.PerLayer((20, 0, 3))),
    "tome": tr.strategy("tome", r=8),
    "evit": tr.strategy("evit"),
    "topk": tr.strategy("topk"),
    "random": tr.strategy("random"),
    "before the block": tr.Strategy("Random", schedule=5, where="before_block"),
}


@cache
def _timm(name: str) -> VisionTransformer:
    return timm.create_model(name).eval()


def _published() -> list[Any]:
    with TABLES.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["metric"] == "gmacs" and r["method"] == "gtp"]
    return [
        pytest.param(r["backbone"], int(r["P"]), float(r["value"]), id=f"{r['backbone']}-{r['P']}")
        for r in rows
        if r["table"] in "17" and r["backbone"] in BACKBONES
    ]


def test_all_published_rows_are_here() -> None:
    assert len(_published()) == 45


@pytest.mark.parametrize(("backbone", "count", "gmacs"), _published())
def test_published(backbone: str, count: int, gmacs: float) -> None:
    reduced = tr.wrap(_timm(BACKBONES[backbone]), tr.strategy("gtp", P=count))
    assert tr.gmacs(reduced) == pytest.approx(gmacs, abs=0.16)


@pytest.mark.parametrize(
    ("backbone", "counts"),
    [
        ("DeiT-S", {0: 4.60, 4: 4.00, 8: 3.42, 11: 2.99, 14: 2.56}),
        ("DeiT-B", {0: 17.56, 4: 15.32, 8: 13.10, 11: 11.46, 14: 9.82}),
    ],
)
def test_gtp(backbone: str, counts: dict[int, float]) -> None:
    for count, gmacs in counts.items():
        reduced = tr.wrap(_timm(BACKBONES[backbone]), tr.strategy("gtp", P=count))
        assert tr.gmacs(reduced, (3, 224, 224)) == pytest.approx(gmacs, abs=0.01)


def test_closed_form() -> None:
    c, n, gone = 384, 197, 8
    cost = tr.wrap(_timm("deit_small_patch16_224"), tr.strategy("gtp", P=gone)).cost()
    assert cost.layers[0].macs == 4 * n * c**2 + 2 * n**2 * c + 8 * (n - gone) * c**2
    assert cost.stem == 196 * 3 * 16**2 * c
    assert cost.head == c * 1000
    assert cost.learned == 0
    assert cost.gmacs == (cost.stem + cost.head + sum(x.macs for x in cost.layers)) / 1e9
    assert [x.tokens_out for x in cost.layers] == [196 - gone * i for i in range(1, 13)]


def test_theta_saves_nothing() -> None:
    model = _timm("deit_small_patch16_224")
    dense, sparse = (tr.wrap(model, tr.strategy("gtp", P=8, theta=t)) for t in (1.0, 0.5))
    assert tr.gmacs(dense) == tr.gmacs(sparse)


def test_another_size() -> None:
    model = VisionTransformer(**MEDIUM, dynamic_img_size=True).eval()
    reduced = tr.wrap(model, tr.strategy("gtp", P=4))
    other = VisionTransformer(**MEDIUM | {"img_size": (160, 96)}).eval()
    expected = tr.wrap(other, tr.strategy("gtp", P=4)).cost()
    assert reduced.cost((160, 96)) == expected
    assert tr.gmacs(reduced, (3, 160, 96)) == expected.gmacs
    assert tr.gmacs(reduced) == tr.gmacs(reduced, (128, 128)) != expected.gmacs


def _measured(reduced: tr.ReducedViT, device: str = "cpu") -> float:
    size = reduced.patch_embed.img_size
    # Views of weights that want gradients, made without recording, confuse the counter.
    reduced.requires_grad_(False)
    counter = FlopCounterMode(display=False)
    # Fused attention on the CPU counts as nothing in older versions.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        reduced(torch.ones(1, 3, *size, device=device))
    return counter.get_total_flops() / 2e9


def _agree(cost: Cost, measured: float) -> None:
    assert cost.gmacs + cost.overhead_gmacs == pytest.approx(measured, rel=0.02)
    if not any(layer.removed for layer in cost.layers):
        assert cost.overhead_gmacs == 0
        assert cost.gmacs == pytest.approx(measured, rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "deit_small_patch16_224"])
def test_counted_by_pytorch(name: str, method: str) -> None:
    reduced = tr.wrap(_timm(name), METHODS[method])
    _agree(reduced.cost(), _measured(reduced))


@pytest.mark.parametrize(
    ("form", "method"),
    # EViT needs a CLS token.
    [(f, m) for f in FORMS for m in METHODS if m != "evit" or FORMS[f].get("class_token", True)],
)
def test_forms_counted_by_pytorch(form: str, method: str) -> None:
    model = VisionTransformer(**MEDIUM, **FORMS[form]).eval()
    reduced = tr.wrap(model, METHODS[method])
    _agree(reduced.cost(), _measured(reduced))


@pytest.mark.parametrize("name", ["vit_small_r26_s32_224", "vitamin_small_224", "vit_base_mci_224"])
def test_convolutional_stems(name: str) -> None:
    model = timm.create_model(name, depth=2).eval()
    reduced = tr.wrap(model, tr.strategy("gtp", P=4))
    _agree(reduced.cost(), _measured(reduced))


@pytest.mark.parametrize("method", ["dense", "gtp", "tome", "evit", "topk", "random"])
def test_785_tokens(method: str) -> None:
    # Shapes are all that counting needs.
    with weightless():
        model = timm.create_model("vit_base_patch8_224").eval()
    reduced = tr.wrap(model, METHODS[method])
    assert reduced.info.num_patches + reduced.info.num_prefix == 785
    _agree(reduced.cost(), _measured(reduced, "meta"))


def test_a_size_that_the_model_cannot_have_has_no_cost() -> None:
    model = tr.wrap(tr.models.load_model("digits"), "topk")
    with pytest.raises(tr.errors.InputError, match=r"images must be 32×32, got 33×32"):
        tr.gmacs(model, (3, 33, 32))
