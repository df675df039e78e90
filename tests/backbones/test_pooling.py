"""Weights of tokens in the head: 0 is not there, 2 is there twice; all backbones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import tokenred as tr
from tokenred.backbones import Backbone, adapt
from tokenred.backbones.vision_transformer import TimmViT
from tokenred.core.errors import BackboneError, ConfigError
from tokenred.models.lvvit import LVViT

SIZES: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
POOLS = [
    {"global_pool": "token"},
    {"global_pool": "token", "reg_tokens": 2},
    {"global_pool": "avg"},
    {"global_pool": "avg", "class_token": False, "fc_norm": True},
    {"global_pool": "avg", "reg_tokens": 3, "pool_include_prefix": True},
    {"global_pool": "avgmax"},
    {"global_pool": "avgmax", "reg_tokens": 1, "pool_include_prefix": True},
    {"global_pool": "map", "class_token": False},
    {"global_pool": "map", "reg_tokens": 1},
    {"global_pool": "max"},
    {"global_pool": "max", "pool_include_prefix": True},
    {"lvvit": True},
]


def _backbone(options: dict[str, Any], lively: Any) -> Backbone:
    if "lvvit" in options:
        return adapt(lively(LVViT(img_size=64, **SIZES)).double().eval())
    model = VisionTransformer(img_size=32, patch_size=8, **SIZES, **options)
    return adapt(lively(model).double().eval())


def _drawn(p: int, n: int = 9, b: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(b, p + n, 24, generator=generator, dtype=torch.float64)
    image = (torch.rand(b, n, generator=generator) < 0.5).double()
    return x, torch.cat((torch.ones(b, p).double(), image), dim=1)


@pytest.mark.parametrize("options", POOLS, ids=str)
def test_as_if_they_were_gone(options: dict[str, Any], lively: Any) -> None:
    backbone = _backbone(options, lively)
    x, mask = _drawn(backbone.info.num_prefix)
    got = backbone.head(x, weight=mask)
    for i in range(3):
        alone = backbone.head(x[i : i + 1, mask[i] > 0])
        torch.testing.assert_close(got[i : i + 1], alone)
    everyone = backbone.head(x, weight=torch.ones_like(mask))
    torch.testing.assert_close(everyone, backbone.head(x))
    pooled = backbone.head(x, pre_logits=True, weight=mask)
    torch.testing.assert_close(pooled[:1], backbone.head(x[:1, mask[0] > 0], pre_logits=True))


@pytest.mark.parametrize("options", POOLS, ids=str)
def test_twice_the_weight_is_twice_there(options: dict[str, Any], lively: Any) -> None:
    backbone = _backbone(options, lively)
    p = backbone.info.num_prefix
    x, _ = _drawn(p)
    times = torch.tensor([1] * p + [1, 3, 1, 2, 1, 1, 4, 1, 1])
    got = backbone.head(x, weight=times.double().expand(3, -1))
    torch.testing.assert_close(got, backbone.head(x.repeat_interleave(times, dim=1)))


@pytest.mark.parametrize("options", POOLS, ids=str)
def test_finite_where_nobody_is_left(options: dict[str, Any], lively: Any) -> None:
    backbone = _backbone(options, lively)
    p = backbone.info.num_prefix
    x, mask = _drawn(p)
    mask[:, p:] = 0
    assert backbone.head(x, weight=mask).isfinite().all()


@pytest.mark.parametrize("pool", ["avg", "map"])
def test_a_mean_tells_the_mask_what_a_token_is_worth(pool: str, lively: Any) -> None:
    backbone = _backbone({"global_pool": pool, "class_token": False}, lively)
    x, mask = _drawn(0)
    mask.requires_grad_()

    def pooled(m: Tensor) -> Tensor:
        return backbone.head(x, weight=m)  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(pooled, (mask * 0.5 + 0.3).detach().requires_grad_())
    pooled(mask).square().sum().backward()
    assert mask.grad is not None
    assert (mask.grad != 0).all()
    assert mask.grad.isfinite().all()


@pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
def test_a_pooling_without_weights_is_refused_where_tokens_have_to_be_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What an adapter has that says nothing of its head.
    monkeypatch.setattr(TimmViT, "pooling", Backbone.pooling)
    model = VisionTransformer(img_size=32, patch_size=8, **SIZES).eval()
    reduced = tr.wrap(model, tr.strategy("dynamicvit"))
    assert reduced.backbone.pooling == "unknown"
    with pytest.raises(BackboneError, match="cannot be told to leave tokens out"):
        reduced.train()(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ConfigError, match="cannot leave padding out"):
        tr.wrap(model, "ats")


# ---------------------------------------------------------------- merging keeps the dense mean

HEADS: list[dict[str, Any]] = [
    {"global_pool": "avg"},
    {"global_pool": "avg", "class_token": False},
    {"global_pool": "avg", "reg_tokens": 2, "pool_include_prefix": True},
]
MERGES = [
    tr.strategy("tome", r=3),
    tr.strategy("tome", r=3, proportional_attention=False),
    tr.strategy("mstm", keep_rate=0.5, weights="size", multi_scale=False),
    tr.strategy("gtp", P=3, fuser="merge", graph="none"),
    tr.strategy("random", keep_rate=0.5, fuser="merge"),
]


def _idle(options: dict[str, Any], lively: Any) -> Any:
    """A model whose blocks change nothing."""
    model = _backbone(options, lively).model
    with torch.no_grad():
        for block in model.blocks:
            for parameter in (*block.attn.proj.parameters(), *block.mlp.fc2.parameters()):
                parameter.zero_()
    return model


def _pictures(b: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(b, 3, 32, 32, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("strategy", MERGES, ids=str)
@pytest.mark.parametrize("options", HEADS, ids=str)
def test_blocks_that_change_nothing_give_the_dense_mean(
    options: dict[str, Any], strategy: tr.Strategy, lively: Any
) -> None:
    model, images = _idle(options, lively), _pictures()
    reduced = tr.wrap(model, strategy)
    with torch.no_grad():
        torch.testing.assert_close(reduced(images), model(images))
        torch.testing.assert_close(reduced.run_with_trace(images)[0], model(images))
        features = reduced.forward_features(images)
        assert features.shape[1] < model.forward_features(images).shape[1]
        torch.testing.assert_close(reduced.forward_head(features), model(images))
        kept = reduced.kept_tokens(images)
        torch.testing.assert_close(torch.cat((kept.prefix, kept.tokens), dim=1), features)
        front = torch.ones(3, kept.prefix.shape[1]).double()
        weight = torch.cat((front, kept.size), dim=1)
        torch.testing.assert_close(
            reduced.forward_head(features.clone(), weight=weight), model(images)
        )
        # As released: every token once.
        plain = reduced.with_strategy(strategy.replace(reference=True))
        torch.testing.assert_close(plain(images), reduced.backbone.head(features.clone()))
        assert not torch.allclose(plain(images), model(images))


def test_attention_pooling_of_merged_copies_is_that_of_the_copies(lively: Any) -> None:
    options = {"global_pool": "map", "class_token": False, "pos_embed": "none"}
    model = _idle(options, lively)
    images = _pictures().repeat_interleave(2, dim=0)[:4]
    images[:, :, 8:, :] = 0.3  # three rows of four patches alike
    reduced = tr.wrap(model, tr.strategy("tome", r=3))
    with torch.no_grad():
        torch.testing.assert_close(reduced(images), model(images))
        plain = reduced.with_strategy(tr.strategy("tome", r=3, reference=True))
        assert not torch.allclose(plain(images), model(images))


@pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
@pytest.mark.parametrize("name", tr.list_strategies())
@pytest.mark.parametrize("pool", ["avg", "map", "avgmax", "max"])
def test_features_and_head_make_the_forward(name: str, pool: str, lively: Any) -> None:
    backbone = _backbone({"global_pool": pool}, lively)
    reduced, images = tr.wrap(backbone.model, name), _pictures()
    with torch.no_grad():
        features = reduced.forward_features(images)
        torch.testing.assert_close(reduced.forward_head(features), reduced(images))
        weighs = reduced.strategy.fuser.traits.conserves_size and pool != "max"
        alone = reduced.backbone.head(features.clone())
        if weighs or (name == "ats" and pool != "max"):
            assert not torch.allclose(alone, reduced(images))
        else:
            # Padding holds zeros; a maximum may not see them.
            assert name == "ats" or torch.allclose(alone, reduced(images))


@pytest.mark.slow
def test_one_graph_with_the_weights_in_it(lively: Any) -> None:
    reduced = tr.wrap(_idle(HEADS[0], lively), tr.strategy("tome", r=3))
    images, batch = _pictures(), torch.export.Dim("batch", min=1, max=8)
    with torch.no_grad():
        compiled = torch.compile(reduced, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(images), reduced(images))
        program = torch.export.export(
            reduced, (images,), dynamic_shapes={"images": {0: batch}}, strict=False
        )
        torch.testing.assert_close(program.module()(_pictures(2)), reduced(_pictures(2)))
