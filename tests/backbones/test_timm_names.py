"""Every timm name that builds a VisionTransformer, made small: wrapping changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import tokenred as tr
from tests.backbones.small import build, images_for, methods_run, names_of, tokens_go
from tokenred.attention import FusedEngine, PlainEngine
from tokenred.core.errors import BackboneError, ConfigError

# Differential attention is the difference of two maps.
REFUSED = {
    "vit_dlittle_patch16_reg1_gap_256",
    "vit_dpwee_patch16_reg1_gap_256",
    "vit_dwee_patch16_reg1_gap_256",
}
NAMES = names_of(VisionTransformer)
# One of each kind, for the methods that not every name has to see.
KINDS = [
    "aimv2_large_patch14_224",
    "deit3_small_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_base_patch16_18x2_224",
    "vit_base_patch16_clip_224",
    "vit_base_patch16_siglip_224",
    "vit_base_patch16_xp_224",
    "vit_base_r26_s32_224",
    "vit_medium_patch16_gap_256",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_resnet26d_224",
    "vitamin_small_224",
]


def test_timm_has_the_names() -> None:
    assert len(NAMES) > 150
    assert set(NAMES) >= REFUSED | set(KINDS)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name: str) -> None:
    with pytest.raises(BackboneError, match=r"Diff.* known.*: .*(Attention|ParallelScalingBlock)"):
        tr.wrap(build(name), tr.strategy("gtp", P=1))


# One test a name, not one a promise: building takes longer than running.
@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_name(
    name: str, lively: Any, untouched: Any, by_hand: Any, same: Any, same_run: Any
) -> None:
    model = lively(build(name))
    images = images_for(model)

    # Nothing removed: the same model, in training as well.
    dense = tr.wrap(model, tr.strategy("gtp", P=0))
    same_run(dense.train(), model, images)
    same_run(dense.eval(), model, images)

    # Nothing removed, but every block opened.
    opened = tr.wrap(model, tr.Strategy("Random", score_mods=(untouched,)))
    same_run(opened, model, images, tolerance=2e-5)
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(2, 9 + model.num_prefix_tokens, model.embed_dim, generator=draw)
    with torch.no_grad():
        for anatomy, block in zip(opened.backbone.blocks, model.blocks, strict=True):
            for engine in (PlainEngine(), FusedEngine()):
                # The residual would hide what is missing beside it.
                got = by_hand(anatomy, x, engine, model.num_prefix_tokens) - x
                same(got, block(x) - x)

    tokens_go(model, images)


@pytest.mark.parametrize("name", KINDS)
def test_methods(name: str, lively: Any) -> None:
    model = lively(build(name)).eval()
    images = images_for(model)
    if model.cls_token is None:
        with pytest.raises(ConfigError, match="CLS"):
            tr.wrap(model, tr.strategy("evit", keep_rate=0.7, layers=(0, 1)))
    methods_run(model, images)
