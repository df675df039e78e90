"""Every timm name that builds a model of a known family, made small: wrapping changes nothing."""

import re
from typing import Any

import pytest
import timm
import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import tokenred as tr
from tests.backbones.checks import NOTHING, OPENED, blocks_agree, same_run
from tests.backbones.forms import DROPS, Unfilled, images_for, lively
from tokenred.core.errors import BackboneError, ConfigError

DEPTH = 2
DROPOUT = dict.fromkeys(DROPS, 0.2)
# Differential attention is the difference of two maps.
REFUSED = ["vit_dlittle_patch16_reg1_gap_256", "vit_dpwee_patch16_reg1_gap_256"]
REFUSED += ["vit_dwee_patch16_reg1_gap_256"]
# One of each kind that the table of forms does not have; the others are slow.
KINDS = [
    "aimv2_large_patch14_224",
    "deit3_small_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "eva02_tiny_patch14_224",
    "vit_base_patch16_18x2_224",
    "vit_base_patch16_clip_224",
    "vit_base_patch16_sapiens2",
    "vit_base_patch16_xp_224",
    "vit_medium_patch16_gap_256",
    "vit_pe_core_gigantic_patch14_448",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "vit_small_patch16_rope_mixed_224",
    "vitamin_small_224",
]


def _names_of(kind: type[nn.Module]) -> list[str]:
    """All names that timm builds a class of models by."""
    made = {n: timm.model_entrypoint(n).__annotations__.get("return") for n in timm.list_models()}
    return [n for n, c in made.items() if isinstance(c, type) and issubclass(c, kind)]


LEAST: dict[type[nn.Module], int] = {VisionTransformer: 150, Eva: 20, Beit: 6}
NAMES = {kind: _names_of(kind) for kind in LEAST}
ALL = [name for names in NAMES.values() for name in names if name not in REFUSED]
# Names that differ in the size of images alone are of one model when it is made small.
DIFFERENT = {re.sub(r"_\d+$", "", name): name for name in [*ALL, *(n for n in KINDS if n in ALL)]}


def _build(name: str) -> Any:
    """Two blocks, narrow, a few patches, every dropout on."""
    model = _sized(name, 56 if "patch14" in name else 64)
    # Large patches leave too few tokens to choose from.
    return model if model.patch_embed.num_patches >= 16 else _sized(name, 128)


def _sized(name: str, size: int) -> Any:
    arguments = {"depth": DEPTH, "img_size": size, "num_classes": 5, **DROPOUT}
    with Unfilled():
        try:
            return timm.create_model(name, **arguments, embed_dim=48, num_heads=3)
        except AssertionError as error:
            if "num_kv_heads" in str(error):
                arguments["num_kv_heads"] = (3, 1)
                return timm.create_model(name, **arguments, embed_dim=48, num_heads=3)
            # A stem without a projection sets the width.
            return timm.create_model(name, **arguments)


def test_timm_has_the_names() -> None:
    for kind, least in LEAST.items():
        assert len(NAMES[kind]) >= least
    assert len(set(KINDS) & set(ALL)) >= 10  # older versions lack some
    assert set(NAMES[VisionTransformer]) >= set(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises(BackboneError, match=r"Diff.* known.*: .*(Attention|ParallelScalingBlock)"):
        tr.wrap(_build(name), tr.strategy("gtp", P=1))


# One test a name, not one a promise: building takes longer than running.
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in KINDS else pytest.mark.slow) for n in DIFFERENT.values()],
)
def test_name(name: str) -> None:
    model = lively(_build(name))
    images = images_for(model)
    # Nothing removed: the same model, in training as well; the same with every block opened.
    same_run(tr.wrap(model, NOTHING).train(), model, images)
    model.eval()
    same_run(tr.wrap(model, OPENED), model, images, tolerance=2e-5)
    blocks_agree(model, images, tolerance=1e-5)
    patches = model.patch_embed.num_patches
    count = min(5, (patches - 1) // DEPTH)
    ratio = {"keep_rate": 0.7, "layers": (0, 1)}
    methods = {"gtp": {"P": count, "M": min(8, patches - 1)}, "tome": {"r": 2}, "evit": ratio}
    dense = model(images)
    for method, arguments in methods.items():
        strategy = tr.strategy(method, **arguments)
        if method == "evit" and model.cls_token is None:
            with pytest.raises(ConfigError, match="CLS"):
                tr.wrap(model, strategy)
            continue
        reduced = tr.wrap(model, strategy)
        with torch.no_grad():
            logits, trace = reduced.run_with_trace(images)
        assert logits.shape == dense.shape
        assert logits.isfinite().all()
        assert not torch.equal(logits, dense)
        assert trace.tokens_per_layer == tuple(x.tokens_out for x in reduced.cost().layers)
        assert trace.tokens_per_layer[-1] < patches
