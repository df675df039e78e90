"""LV-ViT wrapped: where tokens go, and the paper's GMACs."""

from __future__ import annotations

import csv
from functools import cache
from typing import Any

import pytest
import timm
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tokenred as tr
from tokenred.analysis.plots.published import GTP_PAPER as TABLES
from tokenred.models.lvvit import LVViT
from tokenred.models.rebuild import weightless
from tokenred.strategies.schedule import quarters

NAMES = {"LV-ViT-S": "lvvit_s", "LV-ViT-M": "lvvit_m"}
NARROW: dict[str, Any] = {"img_size": 64, "embed_dim": 32, "depth": 4, "num_heads": 4}
NARROW |= {"num_classes": 5}
NOTHING = tr.strategy("gtp", P=0)


@cache
def _full(backbone: str) -> LVViT:
    # Shapes are all that counting needs.
    with weightless():
        return timm.create_model(NAMES[backbone]).eval()


# ---------------------------------------------------------------- where tokens go


@pytest.mark.parametrize(
    ("backbone", "layers"), [("LV-ViT-S", (4, 8, 12)), ("LV-ViT-M", (5, 10, 15))]
)
def test_quarters(backbone: str, layers: tuple[int, ...]) -> None:
    assert quarters(len(_full(backbone).blocks)) == layers
    expected = {"evit": (139, 99, 71), "topk": (138, 97, 68), "random": (138, 97, 68)}
    for recipe, counts in expected.items():
        cost = tr.wrap(_full(backbone), recipe).cost()
        assert tuple(x.layer for x in cost.layers if x.removed) == layers
        assert tuple(cost.layers[i].tokens_out for i in layers) == counts


@pytest.mark.parametrize(("backbone", "stage"), [("LV-ViT-S", 4), ("LV-ViT-M", 5)])
def test_idle_stages(backbone: str, stage: int) -> None:
    cost = tr.wrap(_full(backbone), "idlevit").cost()
    expected = [196] * stage + [137] * stage + [96] * stage + [67] * stage
    assert [x.active for x in cost.layers] == expected
    assert {x.tokens_out for x in cost.layers} == {196}


@pytest.mark.parametrize("backbone", NAMES)
def test_every_block_of_gtp_and_tome(backbone: str) -> None:
    for recipe in ("gtp", "tome"):
        cost = tr.wrap(_full(backbone), recipe).cost()
        assert [x.removed for x in cost.layers] == [8] * len(cost.layers)


# ---------------------------------------------------------------- GMACs


def _published() -> list[Any]:
    with TABLES.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["metric"] == "gmacs" and r["table"] == "1"]
    return [
        pytest.param(r["backbone"], int(r["P"]), float(r["value"]), id=f"{r['backbone']}-{r['P']}")
        for r in rows
        if r["backbone"] in NAMES
    ]


def test_all_published_rows_are_here() -> None:
    counts = [(p.values[0], p.values[1]) for p in _published()]
    assert counts == [*(("LV-ViT-S", p) for p in range(13)), *(("LV-ViT-M", p) for p in range(10))]


@pytest.mark.parametrize(("backbone", "count", "gmacs"), _published())
def test_published(backbone: str, count: int, gmacs: float) -> None:
    reduced = tr.wrap(_full(backbone), tr.strategy("gtp", P=count))
    assert tr.gmacs(reduced) == pytest.approx(gmacs, abs=0.16)


@pytest.mark.parametrize(("backbone", "gmacs"), [("LV-ViT-S", 6.55), ("LV-ViT-M", 12.68)])
def test_dense(backbone: str, gmacs: float) -> None:
    assert tr.gmacs(_full(backbone)) == pytest.approx(gmacs, abs=0.005)
    assert tr.gmacs(_full(backbone), (3, 224, 224)) == tr.gmacs(_full(backbone))


def test_closed_form() -> None:
    c, n, gone = 384, 197, 8
    cost = tr.wrap(_full("LV-ViT-S"), tr.strategy("gtp", P=gone)).cost()
    assert cost.layers[0].macs == 4 * n * c**2 + 2 * n**2 * c + 6 * (n - gone) * c**2
    assert cost.stem == 112**2 * 64 * (3 * 49 + 2 * 64 * 9) + 196 * 64 * 64 * c
    remaining = 196 - 16 * gone
    assert cost.head == 1000 * c * (1 + remaining)


def _measured(reduced: tr.ReducedViT, device: str) -> float:
    reduced.requires_grad_(False)
    counter = FlopCounterMode(display=False)
    images = torch.ones(1, 3, *reduced.patch_embed.img_size, device=device)
    # Fused attention on the CPU counts as nothing in older versions.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        reduced(images)
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize("backbone", NAMES)
@pytest.mark.parametrize("method", ["dense", "gtp", "tome", "evit", "topk", "random", "idlevit"])
def test_counted_by_pytorch(method: str, backbone: str) -> None:
    reduced = tr.wrap(_full(backbone), NOTHING if method == "dense" else method)
    measured = _measured(reduced, "meta")
    cost = reduced.cost()
    assert cost.gmacs + cost.overhead_gmacs == pytest.approx(measured, rel=0.02)
    if method == "dense":
        assert cost.gmacs == pytest.approx(measured, rel=1e-6)


@pytest.mark.parametrize("more", [{"num_classes": 0}, {"img_size": (32, 96)}])
def test_options_counted_by_pytorch(more: dict[str, Any]) -> None:
    reduced = tr.wrap(LVViT(**NARROW | more).eval(), NOTHING)
    assert tr.gmacs(reduced) == pytest.approx(_measured(reduced, "cpu"), rel=1e-6)
