"""Weights of tokens in the head: 0 is not there, 2 is there twice; all backbones."""

from typing import Any

import pytest
import torch
from torch import Tensor

import tokenred as tr
from tests.backbones.forms import build
from tokenred.backbones import Backbone, adapt
from tokenred.backbones.vision_transformer import TimmViT
from tokenred.core.errors import BackboneError, ConfigError

FORM = "vit: pre-norm block"
POOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "token": (FORM, {}),
    "token, registers": (FORM, {"reg_tokens": 2}),
    "avg": (FORM, {"global_pool": "avg"}),
    "avg, no CLS": (FORM, {"global_pool": "avg", "class_token": False, "fc_norm": True}),
    "avg, prefix": ("vit: avg over prefix too", {}),
    "avgmax": (FORM, {"global_pool": "avgmax"}),
    "avgmax, prefix": (FORM, {"global_pool": "avgmax", "pool_include_prefix": True}),
    "map, no CLS": ("vit: no CLS, map", {}),
    "map, register": (FORM, {"global_pool": "map", "reg_tokens": 1}),
    "max": (FORM, {"global_pool": "max"}),
    "max, prefix": (FORM, {"global_pool": "max", "pool_include_prefix": True}),
    "lvvit": ("lvvit: plain", {}),
    "beit": ("beit: own bias", {"global_pool": "avg"}),
    "eva": ("eva: rotary", {"global_pool": "avg"}),
    "eva, map": ("eva: attention pooling", {}),
    "hf pooler": ("hf: ViTModel", {}),
    "hf teacher": ("hf: DeiTForImageClassificationWithTeacher", {}),
    "hf class and mean": ("hf: Dinov2ForImageClassification", {}),
    "hf mean": ("hf: CLIPForImageClassification", {}),
    "hf attention": ("hf: SiglipVisionModel", {}),
}
MEANS = ("avg", "map", "class and mean", "attention")


def _backbone(name: str, **more: Any) -> Backbone:
    form, options = POOLS[name]
    return adapt(build(form, **options, **more).double().eval())


def _drawn(p: int, n: int = 9, b: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(b, p + n, 32, generator=generator, dtype=torch.float64)
    image = (torch.rand(b, n, generator=generator) < 0.5).double()
    return x, torch.cat((torch.ones(b, p).double(), image), dim=1)


@pytest.mark.parametrize("name", POOLS)
def test_a_token_counts_as_often_as_its_weight_says(name: str) -> None:
    backbone = _backbone(name)
    p = backbone.info.num_prefix
    x, mask = _drawn(p)
    got = backbone.head(x, weight=mask)
    pooled = backbone.head(x, pre_logits=True, weight=mask)
    for i in range(3):
        left = x[i : i + 1, mask[i] > 0]
        torch.testing.assert_close(got[i : i + 1], backbone.head(left))
        torch.testing.assert_close(pooled[i : i + 1], backbone.head(left, pre_logits=True))
    torch.testing.assert_close(backbone.head(x, weight=torch.ones_like(mask)), backbone.head(x))
    times = torch.tensor([1] * p + [1, 3, 1, 2, 1, 1, 4, 1, 1])
    got = backbone.head(x, weight=times.double().expand(3, -1))
    torch.testing.assert_close(got, backbone.head(x.repeat_interleave(times, dim=1)))
    if name != "hf attention":  # which takes its weights as logits
        mask[:, p:] = 0
        assert backbone.head(x, weight=mask).isfinite().all()


@pytest.mark.parametrize("name", ["avg, no CLS", "map, no CLS"])
def test_a_mean_tells_the_mask_what_a_token_is_worth(name: str) -> None:
    backbone = _backbone(name)
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
    model = build(FORM).eval()
    reduced = tr.wrap(model, tr.strategy("dynamicvit", layers=(0, 1), keep_rate=0.7))
    assert reduced.backbone.pooling == "unknown"
    with pytest.raises(BackboneError, match="cannot leave tokens out"):
        reduced.train()(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ConfigError, match="cannot leave padding out"):
        tr.wrap(model, "ats")


# ---------------------------------------------------------------- merging keeps the dense mean

MERGES = [
    tr.strategy("tome", r=3),
    tr.strategy("tome", r=3, proportional_attention=False),
    tr.strategy("mstm", keep_rate=0.5, weights="size", multi_scale=False),
    tr.strategy("gtp", P=3, fuser="merge", graph="none"),
    tr.strategy("random", keep_rate=0.5, fuser="merge"),
]


def _idle(name: str, **more: Any) -> Any:
    """A model whose blocks change nothing."""
    model = _backbone(name, **more).model
    with torch.no_grad():
        for block in model.blocks:
            for parameter in (*block.attn.proj.parameters(), *block.mlp.fc2.parameters()):
                parameter.zero_()
    return model


def _pictures(b: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(b, 3, 32, 32, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("strategy", MERGES, ids=str)
@pytest.mark.parametrize("name", ["avg", "avg, no CLS", "avg, prefix"])
def test_blocks_that_change_nothing_give_the_dense_mean(name: str, strategy: tr.Strategy) -> None:
    model, images = _idle(name), _pictures()
    reduced = tr.wrap(model, strategy)
    with torch.no_grad():
        dense = model(images)
        torch.testing.assert_close(reduced(images), dense)
        torch.testing.assert_close(reduced.run_with_trace(images)[0], dense)
        features = reduced.forward_features(images)
        assert features.shape[1] < model.forward_features(images).shape[1]
        torch.testing.assert_close(reduced.forward_head(features), dense)
        kept = reduced.kept_tokens(images)
        torch.testing.assert_close(torch.cat((kept.prefix, kept.tokens), dim=1), features)
        front = torch.ones(3, kept.prefix.shape[1]).double()
        weight = torch.cat((front, kept.size), dim=1)
        torch.testing.assert_close(reduced.forward_head(features.clone(), weight=weight), dense)
        # As released: every token once.
        plain = reduced.with_strategy(strategy.replace(reference=True))
        torch.testing.assert_close(plain(images), reduced.backbone.head(features.clone()))
        assert not torch.allclose(plain(images), dense)


def test_attention_pooling_of_merged_copies_is_that_of_the_copies() -> None:
    model = _idle("map, no CLS", pos_embed="none")
    images = _pictures().repeat_interleave(2, dim=0)[:4]
    images[:, :, 8:, :] = 0.3  # three rows of four patches alike
    reduced = tr.wrap(model, tr.strategy("tome", r=3))
    with torch.no_grad():
        torch.testing.assert_close(reduced(images), model(images))
        plain = reduced.with_strategy(tr.strategy("tome", r=3, reference=True))
        assert not torch.allclose(plain(images), model(images))


@pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
@pytest.mark.parametrize("recipe", tr.list_strategies())
@pytest.mark.parametrize("pool", ["avg", "map, register"])
def test_features_and_head_make_the_forward(recipe: str, pool: str) -> None:
    reduced, images = tr.wrap(_backbone(pool).model, recipe), _pictures()
    with torch.no_grad():
        features = reduced.forward_features(images)
        torch.testing.assert_close(reduced.forward_head(features), reduced(images))
        weighs = reduced.strategy.fuser.traits.conserves_size
        alone = reduced.backbone.head(features.clone())
        # A padded batch may or may not be seen by a head.
        if not any(reduced.strategy.selector.adaptive(layer, 2) for layer in range(2)):
            assert torch.allclose(alone, reduced(images)) is not weighs


@pytest.mark.slow
def test_one_graph_with_the_weights_in_it() -> None:
    reduced = tr.wrap(_idle("avg"), tr.strategy("tome", r=3))
    images, batch = _pictures(), torch.export.Dim("batch", min=1, max=8)
    with torch.no_grad():
        compiled = torch.compile(reduced, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(images), reduced(images))
        program = torch.export.export(
            reduced, (images,), dynamic_shapes={"images": {0: batch}}, strict=False
        )
        torch.testing.assert_close(program.module()(_pictures(2)), reduced(_pictures(2)))
