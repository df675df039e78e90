"""Forms of VisionTransformer that no timm name covers, or that deserve a name here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from timm.layers import RmsNorm, SwiGLU
from timm.models.vision_transformer import (
    Attention,
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
    VisionTransformer,
)
from torch import Tensor, nn

import tokenred as tr
from tokenred.attention import FusedEngine, PlainEngine

TINY: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 4,
    "num_classes": 5,
    "init_values": 0.5,
}
DROPOUT = dict.fromkeys(
    ["drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"], 0.3
)
GATED = "gated"
NO_CLS = {"class_token": False}
FORMS: dict[str, dict[str, Any]] = {
    "pre-norm block": {},
    "post-norm block": {"block_fn": ResPostBlock},
    "parallel scaling": {"block_fn": ParallelScalingBlock},
    "parallel scaling, no bias": {"block_fn": ParallelScalingBlock, "qkv_bias": False},
    "parallel scaling, one projection": {
        "block_fn": partial(ParallelScalingBlock, fuse_out_proj=True),
        "qk_norm": True,
    },
    "parallel things": {"block_fn": ParallelThingsBlock},
    "three parallel things": {
        "block_fn": partial(ParallelThingsBlock, num_parallel=3),
        "qk_norm": True,
        "scale_attn_norm": True,
    },
    "q/k-norm": {"qk_norm": True, "norm_layer": RmsNorm},
    "norm after attention": {"scale_attn_norm": True},
    "norm in the MLP": {"scale_mlp_norm": True},
    "gated": {GATED: True},
    "gated, norms": {GATED: True, "qk_norm": True, "scale_attn_norm": True},
    "gated parallel things": {GATED: True, "block_fn": ParallelThingsBlock},
    "SwiGLU, no bias": {"mlp_layer": SwiGLU, "qkv_bias": False, "proj_bias": False},
    "registers": {"reg_tokens": 4},
    "registers, no CLS": {"reg_tokens": 4, "global_pool": "avg", **NO_CLS},
    "no CLS, avg": {"global_pool": "avg", **NO_CLS},
    "no CLS, avgmax": {"global_pool": "avgmax", **NO_CLS},
    "no CLS, max": {"global_pool": "max", **NO_CLS},
    "no CLS, map": {"global_pool": "map", **NO_CLS},
    "no CLS, prr": {"global_pool": "prr", **NO_CLS},
    "no pooling": {"global_pool": ""},
    "avg over prefix too": {"global_pool": "avg", "reg_tokens": 1, "pool_include_prefix": True},
    "map over prefix too": {"global_pool": "map", "pool_include_prefix": True},
    "prr": {"global_pool": "prr", "reg_tokens": 2},
    "position not on CLS": {"no_embed_class": True, "reg_tokens": 2},
    "no position": {"pos_embed": "none"},
    "norm before blocks": {"pre_norm": True},
    "no final norm": {"final_norm": False},
    "norm after pooling": {"fc_norm": True},
    "wide image": {"img_size": (16, 48)},
    "wide patches": {"patch_size": (4, 16)},
    "one channel": {"in_chans": 1},
    "no classifier": {"num_classes": 0},
}


def _build(form: dict[str, Any], **more: Any) -> VisionTransformer:
    given = {k: v for k, v in form.items() if k != GATED}
    model = VisionTransformer(**{**TINY, **given, **more})
    if GATED in form:
        # timm's model has no argument for it.
        norm = partial(nn.LayerNorm, eps=1e-6)
        options = {k: form[f] for k, f in _ATTENTION.items() if f in form}
        for block in model.blocks:
            for owner in getattr(block, "attns", [block]):
                drop = owner.attn.attn_drop.p
                owner.attn = Attention(
                    32, 4, qkv_bias=True, gated=True, attn_drop=drop, norm_layer=norm, **options
                )
    return model


_ATTENTION = {"qk_norm": "qk_norm", "scale_norm": "scale_attn_norm"}


def _images(model: VisionTransformer, batch: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(5)
    channels = model.patch_embed.proj.in_channels
    return torch.randn(batch, channels, *model.patch_embed.img_size, generator=draw)


@pytest.fixture(params=FORMS, ids=str)
def form(request: pytest.FixtureRequest) -> dict[str, Any]:
    return FORMS[request.param]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_nothing_removed(form: dict[str, Any], training: bool, lively: Any, same_run: Any) -> None:
    model = lively(_build(form, **DROPOUT)).train(training)
    same_run(tr.wrap(model, tr.strategy("gtp", P=0)), model, _images(model))


def test_opened(form: dict[str, Any], lively: Any, untouched: Any, same_run: Any) -> None:
    model = lively(_build(form)).double()
    reduced = tr.wrap(model, tr.Strategy("Random", score_mods=(untouched,)))
    same_run(reduced, model, _images(model).double(), tolerance=1e-12)


def _blocks_agree(model: VisionTransformer, by_hand: Any, same: Any, tolerance: float) -> None:
    p = model.num_prefix_tokens
    x = torch.randn(3, 11, 32, generator=torch.Generator().manual_seed(6))
    x = x.to(model.blocks[0].parameters().__next__().dtype)
    anatomies = tr.wrap(model, tr.strategy("gtp", P=0)).backbone.blocks
    for anatomy, block in zip(anatomies, model.blocks, strict=True):
        torch.manual_seed(7)
        expected = block(x) - x
        for engine in (PlainEngine(), FusedEngine()):
            torch.manual_seed(7)
            same(by_hand(anatomy, x, engine, p) - x, expected, tolerance)


def test_block_by_hand(form: dict[str, Any], lively: Any, by_hand: Any, same: Any) -> None:
    _blocks_agree(lively(_build(form)).double().eval(), by_hand, same, 1e-12)


@pytest.mark.parametrize("kind", [k for k in FORMS if "things" not in k])
def test_block_by_hand_in_training(kind: str, lively: Any, by_hand: Any, same: Any) -> None:
    model = lively(_build(FORMS[kind], **DROPOUT)).double().train()
    _blocks_agree(model, by_hand, same, 1e-12)


@pytest.mark.parametrize("kind", [k for k in FORMS if "things" in k])
def test_parallel_branches_in_training(kind: str, lively: Any, by_hand: Any, same: Any) -> None:
    # The branches' heads are taken together, so attention dropout draws in another order; the
    # other kinds of dropout do not.
    drops = {**DROPOUT, "attn_drop_rate": 0.0}
    _blocks_agree(lively(_build(FORMS[kind], **drops)).double().train(), by_hand, same, 1e-12)
    dropping = lively(_build(FORMS[kind], attn_drop_rate=0.3)).train()
    heads = tr.wrap(dropping, tr.strategy("gtp", P=0)).backbone.blocks[0].heads
    assert heads(torch.randn(1, 5, 32)).dropout == 0.3
    dropping.eval()
    assert heads(torch.randn(1, 5, 32)).dropout == 0


def test_without_fused_attention(
    form: dict[str, Any], lively: Any, by_hand: Any, same: Any
) -> None:
    model = lively(_build(form)).double().eval()
    changed = [m for m in model.blocks.modules() if hasattr(m, "fused_attn")]
    assert changed
    for module in changed:
        module.fused_attn = False
    _blocks_agree(model, by_hand, same, 1e-12)


@pytest.mark.parametrize("method", ["gtp", "tome", "topk"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_tokens_go(form: dict[str, Any], method: str, training: bool, lively: Any) -> None:
    model = lively(_build(form, **DROPOUT)).train(training)
    arguments = {"gtp": {"P": 3, "M": 4}, "tome": {"r": 3}, "topk": {"layers": (0, 1)}}
    reduced = tr.wrap(model, tr.strategy(method, **arguments[method]))
    logits, trace = reduced.run_with_trace(_images(model))
    assert logits.isfinite().all()
    assert trace.tokens_per_layer == tuple(layer.tokens_out for layer in reduced.cost().layers)
    n0 = trace.num_patches
    assert trace.tokens_per_layer[-1] < n0
    # Every token is where it says: its place on the grid is its own.
    assert all(len(set(row)) == len(row) for row in trace.index.tolist())
    assert 0 <= int(trace.index.min()) <= int(trace.index.max()) < n0
    logits.sum().backward()
    assert all(g.isfinite().all() for p in model.parameters() if (g := p.grad) is not None)


def test_removal_in_parallel_blocks_waits_for_the_end(
    lively: Any, same: Callable[..., None]
) -> None:
    model = lively(_build({"block_fn": ParallelScalingBlock})).eval()
    strategy = tr.Strategy("Random", schedule=tr.PerLayer((5, 0)))
    with torch.no_grad():
        _, trace = tr.wrap(model, strategy).run_with_trace(_images(model))
        x = model.blocks[0](model._pos_embed(model.patch_embed(_images(model))))
    kept = trace.index_per_layer[0] + model.num_prefix_tokens
    expected = x.gather(1, kept[..., None].expand(-1, -1, 32))
    same(trace.features[0][:, 1:], expected)
