"""A head that is blind to masked tokens gives what it gives without them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokenred.backbones import Backbone, adapt
from tokenred.backbones.vision_transformer import TimmViT
from tokenred.core.errors import BackboneError
from tokenred.models.lvvit import LVViT

SIZES: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
POOLS = [
    {"global_pool": "token"},
    {"global_pool": "token", "reg_tokens": 2},
    {"global_pool": "avg"},
    {"global_pool": "avg", "class_token": False, "fc_norm": True},
    {"global_pool": "avg", "reg_tokens": 3, "pool_include_prefix": True},
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
    got = backbone.head(backbone.leave_out(x, mask))
    for i in range(3):
        alone = backbone.head(x[i : i + 1, mask[i] > 0])
        torch.testing.assert_close(got[i : i + 1], alone)
    everyone = backbone.leave_out(x, torch.ones_like(mask))
    torch.testing.assert_close(everyone, x)


@pytest.mark.parametrize("options", POOLS, ids=str)
def test_finite_where_nobody_is_left(options: dict[str, Any], lively: Any) -> None:
    backbone = _backbone(options, lively)
    p = backbone.info.num_prefix
    x, mask = _drawn(p)
    mask[:, p:] = 0
    assert backbone.head(backbone.leave_out(x, mask)).isfinite().all()


def test_a_mean_tells_the_mask_what_a_token_is_worth() -> None:
    model = VisionTransformer(
        img_size=32, patch_size=8, **SIZES, global_pool="avg", class_token=False, fc_norm=False
    )
    backbone = adapt(model.double())
    x, mask = _drawn(0)
    mask.requires_grad_()

    def pooled(m: Tensor) -> Tensor:
        return backbone.leave_out(x, m).mean(dim=1)

    assert torch.autograd.gradcheck(pooled, (mask * 0.5 + 0.3).detach().requires_grad_())
    pooled(mask).sum().backward()
    assert mask.grad is not None
    assert (mask.grad != 0).all()


@pytest.mark.parametrize(
    "options", [{"global_pool": "map", "class_token": False}, {"global_pool": "avgmax"}], ids=str
)
def test_other_pooling_is_refused(options: dict[str, Any], lively: Any) -> None:
    backbone = _backbone(options, lively)
    with pytest.raises(BackboneError, match=f"pools by '{options['global_pool']}'"):
        backbone.leave_out(*_drawn(backbone.info.num_prefix))


def test_an_adapter_that_does_not_say_how_refuses() -> None:
    class Own(TimmViT):
        family = "somebody's models"
        leave_out = Backbone.leave_out

    backbone = Own(VisionTransformer(img_size=32, patch_size=8, **SIZES))
    with pytest.raises(BackboneError, match="somebody's models: the head cannot be told"):
        backbone.leave_out(*_drawn(1))
