"""What Hugging Face vision towers make of their last tokens, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tokenred as tr
from tokenred.core.errors import BackboneError, ConfigError

transformers = pytest.importorskip("transformers")

from tests.backbones.hf_models import (  # noqa: E402
    FORMS,
    NOTHING,
    SOME,
    images_for,
)


@pytest.mark.parametrize("form", FORMS)
def test_weights_of_tokens(form: str, build: Any) -> None:
    backbone = tr.wrap(build(form).double().eval(), NOTHING).backbone
    x = torch.randn(1, 12, 32, generator=torch.Generator().manual_seed(1)).double()
    times = torch.tensor([1] * 6 + [3, 1, 2, 0, 0, 0])
    got = backbone.head(x, weight=times.double()[None])
    if backbone.pooling == "average":
        torch.testing.assert_close(got, backbone.head(x.repeat_interleave(times, dim=1)))
        assert not torch.allclose(got, backbone.head(x))
    else:
        assert torch.equal(got, backbone.head(x))


def test_without_class_token(build: Any) -> None:
    model = build("SiglipVisionModel").eval()
    with torch.no_grad():
        assert tr.wrap(model, "tome")(images_for(model)).isfinite().all()
    with pytest.raises(ConfigError, match="SiglipVisionModel"):
        tr.wrap(model, "evit")
    backbone = tr.wrap(model, NOTHING).backbone
    with pytest.raises(BackboneError, match="pools by attention cannot leave tokens out"):
        backbone.head(torch.zeros(1, 4, 32), weight=torch.ones(1, 4, requires_grad=True))


def test_pre_logits(build: Any) -> None:
    model = build("CLIPVisionModelWithProjection").eval()
    reduced, images = tr.wrap(model, NOTHING), images_for(model)
    pooled = reduced.forward_head(reduced.forward_features(images), pre_logits=True)
    torch.testing.assert_close(pooled, model.vision_model(images).pooler_output)
    torch.testing.assert_close(model.visual_projection(pooled), model(images).image_embeds)


def test_hidden_states(build: Any) -> None:
    # What LLaVA reads: the tokens one block before the end, before any norm.
    model = build("CLIPVisionModel").eval()
    images = images_for(model)
    kept = tr.wrap(model, NOTHING).kept_tokens(images, layer=-2, norm=False)
    expected = model(images, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(torch.cat((kept.prefix, kept.tokens), dim=1), expected)


@pytest.mark.parametrize("form", FORMS)
def test_counted_by_pytorch(form: str, build: Any) -> None:
    model = build(form).eval()
    for strategy in (NOTHING, SOME.replace(graph="none", fuser="prune", scorer="Random")):
        reduced = tr.wrap(model, strategy)
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            reduced(images_for(model, 1))
        assert reduced.cost().gmacs == pytest.approx(counter.get_total_flops() / 2e9, rel=1e-6)


def test_closed_form() -> None:
    config = transformers.Dinov2Config(image_size=224, patch_size=14)
    with torch.device("meta"):
        model = transformers.Dinov2Model(config)
    c, n, gone = 768, 257, 8
    cost = tr.wrap(model, tr.strategy("gtp", P=gone)).cost()
    assert cost.layers[0].macs == 4 * n * c**2 + 2 * n**2 * c + 8 * (n - gone) * c**2
    assert cost.stem == 256 * 3 * 14 * 14 * c
