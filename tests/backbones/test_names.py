"""Every timm name that builds a model of a known family, made small: wrapping changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

import tokenred as tr
from tests.backbones.small import build, images_for, methods_run, names_of, tokens_go
from tests.backbones.steps import in_steps
from tokenred.attention import FusedEngine, PlainEngine
from tokenred.core.errors import BackboneError, ConfigError

# Differential attention is the difference of two maps.
REFUSED = {
    "vit_dlittle_patch16_reg1_gap_256",
    "vit_dpwee_patch16_reg1_gap_256",
    "vit_dwee_patch16_reg1_gap_256",
}
NAMES = [
    name
    for kind in (VisionTransformer, Eva, Beit)
    for name in names_of(kind)
    if name not in REFUSED
]
# One of each kind, which the default run and all methods see.
KINDS = [
    "aimv2_large_patch14_224",
    "beit_base_patch16_224",
    "deit3_small_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "eva02_tiny_patch14_224",
    "eva_giant_patch14_clip_224",
    "vit_base_patch16_18x2_224",
    "vit_base_patch16_clip_224",
    "vit_base_patch16_sapiens2",
    "vit_base_patch16_siglip_224",
    "vit_base_patch16_xp_224",
    "vit_base_r26_s32_224",
    "vit_medium_patch16_gap_256",
    "vit_pe_core_gigantic_patch14_448",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "vit_small_patch16_rope_mixed_224",
    "vit_small_resnet26d_224",
    "vitamin_small_224",
]


def test_timm_has_the_names() -> None:
    for kind, least in ((VisionTransformer, 150), (Eva, 20), (Beit, 6)):
        assert len(names_of(kind)) >= least
    assert len(set(KINDS) & set(NAMES)) >= 14  # older versions lack some
    assert set(names_of(VisionTransformer)) >= REFUSED


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name: str) -> None:
    with pytest.raises(BackboneError, match=r"Diff.* known.*: .*(Attention|ParallelScalingBlock)"):
        tr.wrap(build(name), tr.strategy("gtp", P=1))


# One test a name, not one a promise: building takes longer than running.
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in KINDS else pytest.mark.slow) for n in NAMES],
)
def test_name(name: str, lively: Any, untouched: Any, same: Any, same_run: Any) -> None:
    model = lively(build(name))
    images = images_for(model)

    # Nothing removed: the same model, in training as well.
    dense = tr.wrap(model, tr.Strategy.dense())
    same_run(dense.train(), model, images)
    same_run(dense.eval(), model, images)

    # Nothing removed, but every block opened.
    opened = tr.wrap(model, tr.Strategy("Random", score_mods=(untouched,)))
    same_run(opened, model, images, tolerance=2e-5)
    with torch.no_grad():
        state, _ = opened._start(images)
        for layer, block in enumerate(opened.backbone.blocks):
            for engine in (PlainEngine(), FusedEngine()):
                at, whole = in_steps(block, state, layer, engine)
                # The residual would hide what is missing beside it.
                same(at - state.x, whole - state.x)

    tokens_go(model, images)


@pytest.mark.parametrize("name", [name for name in KINDS if name in NAMES])
def test_methods(name: str, lively: Any) -> None:
    model = lively(build(name)).eval()
    if model.cls_token is None:
        with pytest.raises(ConfigError, match="CLS"):
            tr.wrap(model, tr.strategy("evit", keep_rate=0.7, layers=(0, 1)))
    methods_run(model, images_for(model))
