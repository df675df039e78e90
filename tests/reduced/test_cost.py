"""GMACs: the paper's tables, closed forms, and what PyTorch counts in the running model.

Models have no weights: shapes are all that counting needs.
"""

import csv
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tokenred as tr
from tests.backbones.forms import VIT, Unfilled, vit
from tokenred.analysis.measure.image_costs import is_adaptive
from tokenred.analysis.plots.published import GTP_PAPER as TABLES
from tokenred.models.lvvit import LVViT
from tokenred.models.rebuild import weightless
from tokenred.reduced.cost import Cost
from tokenred.strategies.schedule import quarters

BACKBONES = {
    "DeiT-S": "deit_small_patch16_224",
    "DeiT-B": "deit_base_patch16_224",
    "ViT-Medium-GAP": "vit_medium_patch16_gap_256",
    "LV-ViT-S": "lvvit_s",
    "LV-ViT-M": "lvvit_m",
}
MEDIUM: dict[str, Any] = {"img_size": 128, "embed_dim": 128, "depth": 4, "num_heads": 4}
FORMS: dict[str, dict[str, Any]] = {
    "map pool": {"global_pool": "map", "class_token": False},
    "map pool of all": {"global_pool": "map", "reg_tokens": 8, "pool_include_prefix": True},
    "map pool of patches": {"global_pool": "map", "reg_tokens": 8},
    **{name: VIT[name] for name in ("no CLS, prr", "no CLS, avg", "registers", "SwiGLU, no bias")},
    **{name: VIT[name] for name in ("post-norm block", "parallel scaling", "parallel things")},
}
METHODS: dict[str, tr.Strategy] = {
    "dense": tr.Strategy.dense(),
    "gtp": tr.strategy("gtp", P=8),
    "gtp, early": tr.Strategy(
        "MixedAttn", graph="mixed", fuser="propagate", schedule=tr.PerLayer((20, 0, 3))
    ),
    "before the block": tr.Strategy("Random", schedule=5, where="before_block"),
    **{name: tr.strategy(name) for name in ("tome", "evit", "topk", "random", "idlevit")},
}


@cache
def _full(name: str, **options: Any) -> Any:
    name = BACKBONES.get(name, name)
    if not timm.is_model(name):
        pytest.skip(f"this version of timm has no {name}")
    with weightless():
        return timm.create_model(name, **options).eval()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_published(backbone: str) -> None:
    with TABLES.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["metric"] == "gmacs" and r["method"] == "gtp"]
    rows = [r for r in rows if r["table"] in "17"]
    assert len([r for r in rows if r["backbone"] in BACKBONES]) == 45 + 23
    found = {int(r["P"]): float(r["value"]) for r in rows if r["backbone"] == backbone}
    assert len(found) >= 10
    for count, gmacs in found.items():
        reduced = tr.wrap(_full(backbone), tr.strategy("gtp", P=count))
        assert tr.gmacs(reduced) == pytest.approx(gmacs, abs=0.16)


@pytest.mark.parametrize(
    ("backbone", "counts"),
    [
        ("DeiT-S", {0: 4.60, 4: 4.00, 8: 3.42, 11: 2.99, 14: 2.56}),
        ("DeiT-B", {0: 17.56, 4: 15.32, 8: 13.10, 11: 11.46, 14: 9.82}),
        ("LV-ViT-S", {0: 6.55}),
        ("LV-ViT-M", {0: 12.68}),
    ],
)
def test_gtp(backbone: str, counts: dict[int, float]) -> None:
    for count, gmacs in counts.items():
        reduced = tr.wrap(_full(backbone), tr.strategy("gtp", P=count))
        assert tr.gmacs(reduced, (3, 224, 224)) == pytest.approx(gmacs, abs=0.01)
        # θ saves nothing.
        sparse = reduced.with_strategy(tr.strategy("gtp", P=count, theta=0.5))
        assert tr.gmacs(sparse) == tr.gmacs(reduced)


EVA_L = {"embed_dim": 1024, "depth": 24, "num_heads": 16, "mlp_ratio": 4}
LV_STEM = 112**2 * 64 * (3 * 49 + 2 * 64 * 9) + 196 * 64 * 64 * 384


@pytest.mark.parametrize(
    ("name", "options", "sizes", "mlp", "stem", "classifiers"),
    [
        ("deit_small_patch16_224", {}, (384, 197), 8, 196 * 3 * 16**2 * 384, 1),
        ("eva_giant_patch14_224", EVA_L, (1024, 257), 8, 256 * 3 * 14**2 * 1024, 1),
        # Its second classifier sees every patch that is left.
        ("lvvit_s", {}, (384, 197), 6, LV_STEM, 1 + 196 - 16 * 8),
    ],
)
def test_closed_form(
    name: str, options: Any, sizes: tuple[int, int], mlp: int, stem: int, classifiers: int
) -> None:
    (c, n), gone = sizes, 8
    cost = tr.wrap(_full(name, **options), tr.strategy("gtp", P=gone)).cost()
    assert cost.layers[0].macs == 4 * n * c**2 + 2 * n**2 * c + mlp * (n - gone) * c**2
    assert (cost.stem, cost.head, cost.learned) == (stem, 1000 * c * classifiers, 0)
    assert cost.gmacs == (cost.stem + cost.head + sum(x.macs for x in cost.layers)) / 1e9
    depth = len(cost.layers)
    assert [x.tokens_out for x in cost.layers] == [n - 1 - gone * i for i in range(1, depth + 1)]


@pytest.mark.parametrize(
    ("backbone", "layers"), [("LV-ViT-S", (4, 8, 12)), ("LV-ViT-M", (5, 10, 15))]
)
def test_layers_scale_with_the_depth(backbone: str, layers: tuple[int, ...]) -> None:
    assert quarters(len(_full(backbone).blocks)) == layers
    expected = {"evit": (139, 99, 71), "topk": (138, 97, 68), "random": (138, 97, 68)}
    for recipe, counts in expected.items():
        cost = tr.wrap(_full(backbone), recipe).cost()
        assert tuple(x.layer for x in cost.layers if x.removed) == layers
        assert tuple(cost.layers[i].tokens_out for i in layers) == counts
    idle = tr.wrap(_full(backbone), "idlevit").cost().layers
    stage = layers[0]
    assert [x.active for x in idle] == [n for n in (196, 137, 96, 67) for _ in range(stage)]
    assert {x.tokens_out for x in idle} == {196}


def test_printed() -> None:
    cost = tr.wrap(vit(), "gtp").cost()
    assert len(repr(cost)) < 80
    head, *layers, total = str(cost).splitlines()
    assert head.split() == ["block", "in", "gone", "out", "GMACs"]
    assert len(layers) == len(cost.layers)
    assert total.endswith(f"{cost.gmacs:.3f} GMACs per image")  # the overhead rounds to nothing
    more = replace(cost, overhead=3e5, unknown=("Own",))
    end = "GMACs per image, 0.0003 of overhead not counted; the overhead of Own is unknown"
    assert str(more).endswith(end)


@pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
@pytest.mark.parametrize("name", tr.list_strategies())
def test_overhead_is_unknown_where_images_decide(name: str) -> None:
    reduced = tr.wrap(vit(depth=12), tr.strategy(name))
    cost, decides = reduced.cost(), is_adaptive(reduced)
    assert bool(cost.unknown) == decides
    assert ("is unknown" in str(cost)) == decides


def test_another_size() -> None:
    reduced = tr.wrap(vit(img_size=64, dynamic_img_size=True), tr.strategy("gtp", P=4))
    expected = tr.wrap(vit(img_size=(80, 48)), tr.strategy("gtp", P=4)).cost()
    assert reduced.cost((80, 48)) == expected
    assert tr.gmacs(reduced, (3, 80, 48)) == expected.gmacs
    assert tr.gmacs(reduced) == tr.gmacs(reduced, (64, 64)) != expected.gmacs
    with pytest.raises(tr.errors.InputError, match=r"multiples of the patch 8×8, got 33×32"):
        tr.gmacs(reduced, (3, 33, 32))


# ---------------------------------------------------------------- counted by PyTorch


def _agree(model: nn.Module, method: str) -> None:
    reduced = tr.wrap(model, METHODS[method])
    cost: Cost = reduced.cost()
    # Views of weights that want gradients, made without recording, confuse the counter.
    reduced.requires_grad_(False)
    counter = FlopCounterMode(display=False)
    device = next(reduced.parameters()).device
    # Fused attention on the CPU counts as nothing in older versions.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        reduced(torch.ones(1, 3, *reduced.patch_embed.img_size, device=device))
    measured = counter.get_total_flops() / 2e9
    # What the method spends is an estimate, and small.
    assert cost.gmacs + cost.overhead_gmacs == pytest.approx(measured, rel=0.02)
    if method == "dense":
        assert cost.overhead_gmacs == 0
        assert cost.gmacs == pytest.approx(measured, rel=1e-6)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "gtp, early"])
@pytest.mark.parametrize("name", ["deit_small_patch16_224", "lvvit_s"])
def test_counted_by_pytorch(name: str, method: str) -> None:
    _agree(_full(name), method)


@pytest.mark.parametrize("form", FORMS)
def test_forms_counted_by_pytorch(form: str) -> None:
    with weightless():
        model = VisionTransformer(**MEDIUM, **FORMS[form]).eval()
    for method in ("dense", "gtp, early", "before the block"):
        _agree(model, method)


@pytest.mark.parametrize("more", [{"num_classes": 0}, {"img_size": (32, 96)}])
def test_options_of_lvvit(more: dict[str, Any]) -> None:
    narrow = {"img_size": 64, "embed_dim": 32, "depth": 4, "num_heads": 4, "num_classes": 5}
    _agree(LVViT(**narrow | more).eval(), "dense")


@pytest.mark.parametrize(
    "name",
    [
        *("vit_small_r26_s32_224", "vitamin_small_224", "vit_base_mci_224"),  # convolutional stems
        "beit_base_patch16_224",
        "eva02_tiny_patch14_224",
        # Grouped queries, told block by block.
        pytest.param("vit_base_patch16_sapiens2", marks=pytest.mark.slow),
        "vit_pe_core_tiny_patch16_384",  # pooling by attention
        "vit_small_patch16_dinov3",
    ],
)
def test_other_families(name: str) -> None:
    if not timm.is_model(name):
        pytest.skip(f"this version of timm has no {name}")
    with Unfilled():
        model = timm.create_model(name, **({} if "sapiens2" in name else {"depth": 2})).eval()
    for method in ("dense", "gtp"):
        if not name.endswith(("mci_224", "r26_s32_224")) or method == "gtp":
            _agree(model.to("meta"), method)
