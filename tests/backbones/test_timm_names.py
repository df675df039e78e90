"""Every timm name that builds a VisionTransformer, made small: wrapping changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.overrides import TorchFunctionMode

import tokenred as tr
from tokenred.attention import FusedEngine, PlainEngine
from tokenred.core.errors import BackboneError, ConfigError

DEPTH = 2
# Differential attention is the difference of two maps.
REFUSED = {
    "vit_dlittle_patch16_reg1_gap_256",
    "vit_dpwee_patch16_reg1_gap_256",
    "vit_dwee_patch16_reg1_gap_256",
}
DROPOUT = dict.fromkeys(
    ["drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"], 0.2
)


def _names() -> list[str]:
    made = {n: timm.model_entrypoint(n).__annotations__.get("return") for n in timm.list_models()}
    return [n for n, c in made.items() if isinstance(c, type) and issubclass(c, VisionTransformer)]


NAMES = _names()
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


class _Unfilled(TorchFunctionMode):
    """Leaves new weights as they are: they are filled again anyway, and that takes the time."""

    random = (Tensor.normal_, Tensor.uniform_, Tensor.erfinv_, torch.nn.init.trunc_normal_)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in self.random else func(*args, **(kwargs or {}))


def _build(name: str) -> VisionTransformer:
    model = _small(name, 56 if "patch14" in name else 64)
    # Large patches leave too few tokens to choose from.
    return model if model.patch_embed.num_patches >= 16 else _small(name, 128)


def _small(name: str, size: int) -> VisionTransformer:
    arguments = {"depth": DEPTH, "img_size": size, "num_classes": 5, **DROPOUT}
    with _Unfilled():
        try:
            model = timm.create_model(name, **arguments, embed_dim=48, num_heads=3)
        except AssertionError:  # a stem without a projection sets the width
            model = timm.create_model(name, **arguments)
    assert isinstance(model, VisionTransformer)
    return model


def test_timm_has_the_names() -> None:
    assert len(NAMES) > 150
    assert set(NAMES) >= REFUSED | set(KINDS)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name: str) -> None:
    with pytest.raises(BackboneError, match=r"Diff.* known.*: .*(Attention|ParallelScalingBlock)"):
        tr.wrap(_build(name), tr.strategy("gtp", P=1))


# One test a name, not one a promise: building takes longer than running.
@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_name(
    name: str, lively: Any, untouched: Any, by_hand: Any, same: Any, same_run: Any
) -> None:
    model = lively(_build(name))
    draw = torch.Generator().manual_seed(2)
    images = torch.randn(2, 3, *model.patch_embed.img_size, generator=draw)

    # Nothing removed: the same model, in training as well.
    dense = tr.wrap(model, tr.strategy("gtp", P=0))
    same_run(dense.train(), model, images)
    same_run(dense.eval(), model, images)

    # Nothing removed, but every block opened.
    opened = tr.wrap(model, tr.Strategy("Random", edits=(untouched,)))
    same_run(opened, model, images, tolerance=2e-5)
    x = torch.randn(2, 9 + model.num_prefix_tokens, model.embed_dim, generator=draw)
    with torch.no_grad():
        for anatomy, block in zip(opened.backbone.blocks, model.blocks, strict=True):
            for engine in (PlainEngine(), FusedEngine()):
                # The residual would hide what is missing beside it.
                got = by_hand(anatomy, x, engine, model.num_prefix_tokens) - x
                same(got, block(x) - x)

    _tokens_go(model, images)


def _tokens_go(model: VisionTransformer, images: Tensor) -> None:
    patches, prefix = model.patch_embed.num_patches, model.num_prefix_tokens
    count = min(5, (patches - 1) // DEPTH)
    assert count > 0
    strategy = tr.strategy("gtp", P=count, M=min(8, patches - 1))
    with torch.no_grad():
        logits, trace = tr.wrap(model, strategy).run_with_trace(images)
        dense = model(images)
    assert logits.shape == dense.shape
    assert logits.isfinite().all()
    assert not torch.equal(logits, dense)
    assert trace.tokens_per_layer == tuple(patches - count * (i + 1) for i in range(DEPTH))
    assert [x.shape[1] - prefix for x in trace.features] == list(trace.tokens_per_layer)


@pytest.mark.parametrize("name", KINDS)
def test_methods(name: str, lively: Any) -> None:
    model = lively(_build(name)).eval()
    images = torch.randn(2, 3, *model.patch_embed.img_size)
    ratio = {"keep_rate": 0.7, "layers": (0, 1)}
    methods = {"tome": {"r": 2}, "topk": ratio, "random": ratio, "evit": ratio}
    if model.cls_token is None:
        with pytest.raises(ConfigError, match="CLS"):
            tr.wrap(model, tr.strategy("evit", **methods.pop("evit")))
    for method, arguments in methods.items():
        reduced = tr.wrap(model, tr.strategy(method, **arguments))
        with torch.no_grad():
            logits, trace = reduced.run_with_trace(images)
        assert logits.shape == (2, 5)
        assert logits.isfinite().all()
        assert trace.tokens_per_layer == tuple(x.tokens_out for x in reduced.cost().layers)
        assert trace.tokens_per_layer[-1] < model.patch_embed.num_patches
