"""LV-ViT wrapped: the same model with nothing removed, every recipe, the paper's GMACs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tokenred as tr
from tokenred.attention import FusedEngine, PlainEngine
from tokenred.backbones.lvvit import LVViTBackbone
from tokenred.core.errors import BackboneError, InputError
from tokenred.models.lvvit import LVViT

NAMES = {"LV-ViT-S": "lvvit_s", "LV-ViT-M": "lvvit_m"}
NARROW: dict[str, Any] = {"img_size": 64, "embed_dim": 32, "depth": 4, "num_heads": 4}
NARROW |= {"num_classes": 5}
DROPOUT = dict.fromkeys(
    ["drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"], 0.3
)
NOTHING = tr.strategy("gtp", P=0)
RECIPES = tr.list_strategies()
untrained = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


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
    reduced = tr.wrap(model, tr.Strategy("Random", score_mods=(untouched,)), engine=engine)
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


def test_no_blocks() -> None:
    model = LVViT(**NARROW)
    model.blocks = nn.Sequential()
    with pytest.raises(BackboneError, match="no blocks"):
        tr.wrap(model, NOTHING)
