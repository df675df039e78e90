"""GMACs of Eva and Beit in closed form, against PyTorch's counter."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tokenred as tr
from tests.backbones.small import Unfilled

NOTHING = tr.strategy("gtp", P=0)


def _full(name: str, **arguments: Any) -> Any:
    if not timm.is_model(name):
        pytest.skip(f"this version of timm has no {name}")
    with Unfilled():
        model = timm.create_model(name, **arguments)
    return model.eval().requires_grad_(False).to("meta")


def _counted(reduced: tr.ReducedViT) -> float:
    counter = FlopCounterMode(display=False)
    images = torch.ones(1, 3, *reduced.patch_embed.img_size, device="meta")
    # Fused attention on the CPU counts as nothing in older versions.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        reduced(images)
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize(
    "name",
    [
        "beit_base_patch16_224",
        "eva02_tiny_patch14_224",
        "vit_base_patch16_sapiens2",  # grouped queries
        "vit_pe_core_tiny_patch16_384",  # pooling by attention
        "vit_small_patch16_dinov3",
    ],
)
def test_counted_by_pytorch(name: str) -> None:
    # Grouped queries are told block by block, so that this one keeps its depth.
    model = _full(name) if "sapiens2" in name else _full(name, depth=4)
    for strategy in (NOTHING, tr.strategy("gtp")):
        reduced = tr.wrap(model, strategy)
        cost = reduced.cost()
        # What the method spends is an estimate, and small.
        exact = 1e-6 if strategy is NOTHING else 2e-2
        assert cost.gmacs + cost.overhead_gmacs == pytest.approx(_counted(reduced), rel=exact)


def test_closed_form() -> None:
    # The size of EVA-L/14: 1024 wide, 24 blocks of 16 heads, MLP ratio 4.
    c, n, gone = 1024, 257, 8
    model = _full("eva_giant_patch14_224", embed_dim=c, depth=24, num_heads=16, mlp_ratio=4)
    cost = tr.wrap(model, tr.strategy("gtp", P=gone)).cost()
    assert cost.layers[0].macs == 4 * n * c**2 + 2 * n**2 * c + 8 * (n - gone) * c**2
    assert cost.stem == 256 * 3 * 14 * 14 * c
    assert cost.head == 1000 * c
