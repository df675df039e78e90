"""`Trace.attention`: the maps as they were applied, on request only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import tokenred as tr
from tests.backbones.forms import FAMILIES, TINY, images_for
from tokenred.core.errors import BackboneError, ConfigError

NAMES = tr.list_strategies()
pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


def _deep() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(**TINY | {"depth": 6, "img_size": 64}).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_of_a_model_that_keeps_all(family: str) -> None:
    model = FAMILIES[family]().eval()
    reduced = tr.wrap(model, tr.strategy("gtp", P=0))
    images = images_for(model)
    with torch.no_grad():
        _, mean = reduced.run_with_trace(images, attention=True)
        _, heads = reduced.run_with_trace(images, attention="heads")
    for layer in range(3):
        each = heads.attention(layer)
        torch.testing.assert_close(each.sum(dim=-1), torch.ones(each.shape[:-1]))
        torch.testing.assert_close(mean.attention(layer), each.mean(dim=1))


def test_they_are_the_model_s_own() -> None:
    model = _deep()
    maps: list[Tensor] = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda m, i, o: maps.append(o))
    with torch.no_grad():
        model(images_for(model))
        theirs = list(maps)
        _, trace = tr.wrap(model, tr.strategy("gtp", P=0)).run_with_trace(
            images_for(model), attention="heads"
        )
    for layer, expected in enumerate(theirs):
        torch.testing.assert_close(trace.attention(layer), expected)


@pytest.mark.parametrize("name", NAMES)
def test_maps_of_every_recipe(name: str) -> None:
    model = _deep()
    reduced = tr.wrap(model, name)
    with torch.no_grad():
        expected = reduced(images_for(model))
        logits, trace = reduced.run_with_trace(images_for(model), attention="mean")
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    p = trace.num_prefix
    for layer in range(6):
        tokens = trace.attention_index[layer].shape[1]
        assert trace.attention(layer).shape == (2, p + tokens, p + tokens)
    before = trace.cut(2)
    assert before.attention(-1) is trace.attention(2)
    with pytest.raises(ConfigError, match="blocks 0 to 2"):
        before.attention(3)


def test_nothing_is_kept_unless_asked_for() -> None:
    model = _deep()
    reduced = tr.wrap(model, tr.strategy("gtp", P=4, M=3))
    _, trace = reduced.run_with_trace(images_for(model))
    assert not trace.attention_maps
    with pytest.raises(ConfigError, match="attention='mean'"):
        trace.attention(0)
    with pytest.raises(ConfigError, match="attention must be one of"):
        reduced.run_with_trace(images_for(model), attention="max")


def test_blocks_without_a_map() -> None:
    model: Any = _deep()
    reduced = tr.wrap(model, tr.strategy("topk", layers=(5,), keep_rate=0.5))
    model.blocks[0] = nn.Identity()
    _, trace = reduced.run_with_trace(images_for(model), attention="mean")
    with pytest.raises(ConfigError, match="no attention map of block 0"):
        trace.attention(0)
    trace.attention(1)
    model.blocks[1].attn.forward = lambda x, **kwargs: x
    reduced(images_for(model))
    with pytest.raises(BackboneError, match=r"blocks\.1 \(Block\)"):
        reduced.run_with_trace(images_for(model), attention="mean")
