"""LV-ViT wrapped: the same model with nothing removed, every recipe, the paper's GMACs."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tokenred as tr
from tokenred.attention import FusedEngine, PlainEngine
from tokenred.backbones.lvvit import LVViTBackbone
from tokenred.core.errors import BackboneError, InputError
from tokenred.models.lvvit import LVViT
from tokenred.models.rebuild import weightless
from tokenred.strategies.schedules import quarters

TABLES = Path(__file__).parents[1] / "reference" / "gtp_paper_tables.csv"
NAMES = {"LV-ViT-S": "lvvit_s", "LV-ViT-M": "lvvit_m"}
NARROW: dict[str, Any] = {"img_size": 64, "embed_dim": 32, "depth": 4, "num_heads": 4}
NARROW |= {"num_classes": 5}
DROPOUT = dict.fromkeys(
    ["drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"], 0.3
)
NOTHING = tr.strategy("gtp", P=0)
RECIPES = tr.list_strategies()
untrained = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


@cache
def _full(backbone: str) -> LVViT:
    # Shapes are all that counting needs.
    with weightless():
        return timm.create_model(NAMES[backbone]).eval()


def _images(*size: int, batch: int = 3) -> Tensor:
    return torch.randn(batch, 3, *(size or (64, 64)), generator=torch.Generator().manual_seed(5))


# ---------------------------------------------------------------- the same model


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("more", [{}, DROPOUT, {"patch_drop_rate": 0.4}, {"num_classes": 0}])
def test_nothing_removed(more: dict[str, Any], training: bool, lively: Any, same_run: Any) -> None:
    model = lively(LVViT(**NARROW | more)).train(training)
    same_run(tr.wrap(model, NOTHING), model, _images())


@pytest.mark.parametrize("engine", ["auto", "plain"])
def test_opened(engine: str, lively: Any, untouched: Any, same_run: Any) -> None:
    model = lively(LVViT(**NARROW))
    reduced = tr.wrap(model, tr.Strategy("Random", edits=(untouched,)), engine=engine)
    same_run(reduced.eval(), model, _images())
    same_run(reduced.double(), model, _images().double(), tolerance=1e-12)
    same_run(reduced.train(), model, _images().double(), tolerance=1e-12)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_block_by_hand(training: bool, lively: Any, by_hand: Any, same: Any) -> None:
    model = lively(LVViT(**NARROW, **DROPOUT)).double().train(training)
    x = torch.randn(3, 11, 32, generator=torch.Generator().manual_seed(6)).double()
    anatomies = tr.wrap(model, NOTHING).backbone.blocks
    for anatomy, block in zip(anatomies, model.blocks, strict=True):
        torch.manual_seed(7)
        expected = block(x) - x
        for engine in (PlainEngine(), FusedEngine()):
            torch.manual_seed(7)
            same(by_hand(anatomy, x, engine, 1) - x, expected, 1e-12)


@pytest.mark.parametrize("size", [(32, 96), (80, 48)])
def test_sizes(size: tuple[int, int], lively: Any, same_run: Any) -> None:
    grid = (size[0] // 16, size[1] // 16)
    for options in ({"img_size": size}, {"dynamic_img_size": True}):
        model = lively(LVViT(**NARROW | options)).eval()
        reduced = tr.wrap(model, tr.strategy("gtp", P=2, M=3))
        same_run(reduced.with_strategy(NOTHING), model, _images(*size))
        _, trace = reduced.run_with_trace(_images(*size))
        assert trace.grid == grid
        assert trace.tokens_per_layer[-1] == grid[0] * grid[1] - 8
        fixed = tr.wrap(LVViT(**NARROW | {"img_size": size}), reduced.strategy)
        assert reduced.cost(size) == fixed.cost()


def test_wrong_images() -> None:
    with pytest.raises(InputError, match=r"must be 64×64, got 64×80"):
        tr.wrap(LVViT(**NARROW), NOTHING)(_images(64, 80))
    free = tr.wrap(LVViT(**NARROW, dynamic_img_size=True), NOTHING)
    with pytest.raises(InputError, match=r"multiples of the patch 16×16, got 64×72"):
        free(_images(64, 72))
    with pytest.raises(InputError, match=r"\(batch, 1, height, width\)"):
        tr.wrap(LVViT(**NARROW, in_chans=1), NOTHING)(_images())


def test_info() -> None:
    backbone = LVViTBackbone(LVViT(**NARROW))
    assert tr.backbones.adapt(LVViT(**NARROW)).family == backbone.family
    info = backbone.info
    assert (info.num_prefix, info.cls_index, info.grid, info.depth) == (1, 0, (4, 4), 4)
    assert (info.width, info.num_heads, info.head_dim) == (32, 4, 8)


class Renamed(LVViT):
    """Changes nothing that a forward runs through."""


class OwnHead(LVViT):
    def forward_head(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return super().forward_head(x, *args, **kwargs) * 2


def test_subclasses(lively: Any, same_run: Any) -> None:
    model = lively(Renamed(**NARROW)).eval()
    same_run(tr.wrap(model, NOTHING), model, _images())
    with pytest.raises(BackboneError, match=r"OwnHead.*Known: .*; LV-ViT"):
        tr.wrap(OwnHead(**NARROW), NOTHING)


# ---------------------------------------------------------------- tokens go


@untrained
@pytest.mark.parametrize("recipe", RECIPES)
@torch.no_grad()
def test_every_recipe(recipe: str, lively: Any) -> None:
    model = lively(LVViT(**NARROW)).double().eval()
    reduced = tr.wrap(model, recipe)
    images = _images().double()
    logits, trace = reduced.run_with_trace(images)
    cost = reduced.cost()
    if not any(reduced.strategy.selector.adaptive(layer, 4) for layer in range(4)):
        assert trace.tokens_per_layer == tuple(layer.tokens_out for layer in cost.layers)
        # Parts with weights may outweigh the tokens of so small a model.
        assert cost.gmacs - cost.learned / 1e9 < tr.gmacs(model)
    assert not torch.allclose(logits, model(images))
    # The head looks at what remains of an image, and at nothing of its neighbours.
    alone = torch.cat([reduced(image[None]) for image in images])
    torch.testing.assert_close(alone, logits, rtol=0, atol=1e-10)


@untrained
@pytest.mark.parametrize("recipe", RECIPES)
def test_training(recipe: str, lively: Any) -> None:
    model = lively(LVViT(**NARROW, **DROPOUT)).train()
    reduced = tr.wrap(model, recipe)
    plain = _gradients(reduced)
    reduced.set_grad_checkpointing()
    for name, grad in _gradients(reduced).items():
        assert grad.isfinite().all(), name
        torch.testing.assert_close(grad, plain[name], msg=name)


def _gradients(reduced: tr.ReducedViT) -> dict[str, Tensor]:
    torch.manual_seed(1)
    reduced.zero_grad()
    reduced(_images()).square().sum().backward()
    found = {n: p.grad.clone() for n, p in reduced.named_parameters() if p.grad is not None}
    assert {"patch_embed.conv1.weight", "head.weight", "aux_head.weight"} <= found.keys()
    return found


def test_the_head_sees_the_tokens_that_remain(lively: Any, same: Any) -> None:
    model = lively(LVViT(**NARROW)).eval()
    reduced = tr.wrap(model, tr.strategy("topk", layers=(1, 3), keep_rate=0.3))
    features = reduced.forward_features(_images())
    assert features.shape == (3, 1 + 2, 32)  # 16 → 5 → 2
    cls, each = model.forward_head(features, return_tokens=True)
    same(reduced(_images()), cls + each.amax(1) / 2, 1e-6)


def test_intermediates(lively: Any, same: Any) -> None:
    model = lively(LVViT(**NARROW)).eval()
    expected = model.forward_intermediates(_images(), indices=2)
    same(tr.wrap(model, NOTHING).forward_intermediates(_images(), indices=2), expected)
    reduced = tr.wrap(model, "gtp")
    assert [x.shape for x in reduced.forward_intermediates(_images())[1]] == [(3, 32, 4, 4)] * 4


@pytest.mark.parametrize("recipe", ["gtp", "idlevit"])
def test_saved_and_loaded(recipe: str, lively: Any, tmp_path: Path) -> None:
    reduced = tr.wrap(lively(LVViT(**NARROW)).half().eval(), recipe)
    path = tr.save(reduced, tmp_path / "m.safetensors")
    loaded = tr.load(path, model=LVViT(**NARROW))
    assert loaded.strategy == reduced.strategy
    with torch.no_grad():
        assert torch.equal(loaded(_images().half()), reduced(_images().half()))


def test_autocast(lively: Any, same: Any) -> None:
    model = lively(LVViT(**NARROW)).eval()
    reduced = tr.wrap(model, tr.strategy("random", layers=(0, 2)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = reduced(_images())
        same(tr.wrap(model, NOTHING)(_images()), model(_images()), 1e-5)
    with torch.no_grad():
        same(low.float(), reduced(_images()), 0.1)


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


def test_no_blocks() -> None:
    model = LVViT(**NARROW)
    model.blocks = nn.Sequential()
    with pytest.raises(BackboneError, match="no blocks"):
        tr.wrap(model, NOTHING)
