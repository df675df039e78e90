"""What a timm model can be asked for beyond its form: sizes, dropout, precision, checkpointing."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import tokenred as tr
from tokenred.core.errors import InputError

TINY: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 4,
    "num_classes": 5,
    "init_values": 0.5,
}
NOTHING = tr.strategy("gtp", P=0)
SOME = tr.strategy("gtp", P=2, M=3)


def _images(*size: int, batch: int = 3) -> Tensor:
    return torch.randn(batch, 3, *(size or (32, 32)), generator=torch.Generator().manual_seed(5))


DISTILLED = {"init_values": None}


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (64, 16), (48, 48)])
@pytest.mark.parametrize("no_embed_class", [False, True])
def test_dynamic_size(
    size: tuple[int, int], no_embed_class: bool, lively: Any, same_run: Any
) -> None:
    options = {"dynamic_img_size": True, "no_embed_class": no_embed_class, "reg_tokens": 2}
    model = lively(VisionTransformer(**TINY, **options)).eval()
    same_run(tr.wrap(model, NOTHING), model, _images(*size))
    logits, trace = tr.wrap(model, SOME).run_with_trace(_images(*size))
    assert trace.grid == (size[0] // 8, size[1] // 8)
    assert trace.tokens_per_layer[-1] == trace.num_patches - 6
    assert logits.isfinite().all()


def test_dynamic_size_of_distilled(lively: Any, same_run: Any) -> None:
    model = VisionTransformerDistilled(**TINY | DISTILLED, dynamic_img_size=True)
    same_run(tr.wrap(lively(model).eval(), NOTHING), model, _images(40, 24))


@pytest.mark.parametrize("size", [(30, 33), (32, 32), (20, 41)])
def test_padding(size: tuple[int, int], lively: Any, same_run: Any) -> None:
    options = {"dynamic_img_size": True, "dynamic_img_pad": True}
    model = lively(VisionTransformer(**TINY, **options)).eval()
    same_run(tr.wrap(model, NOTHING), model, _images(*size))
    _, trace = tr.wrap(model, SOME).run_with_trace(_images(*size))
    assert trace.grid == (-(-size[0] // 8), -(-size[1] // 8))


@pytest.mark.parametrize("size", [(64, 96), (128, 64)])
@pytest.mark.parametrize("name", ["vit_small_resnet50d_s16_224", "vitamin_small_224"])
def test_dynamic_size_of_a_hybrid(
    name: str, size: tuple[int, int], lively: Any, same_run: Any
) -> None:
    options = {"img_size": 64, "depth": 2, "num_classes": 5, "dynamic_img_size": True}
    model = lively(timm.create_model(name, **options)).eval()
    same_run(tr.wrap(model, NOTHING), model, _images(*size, batch=1))
    _, trace = tr.wrap(model, SOME).run_with_trace(_images(*size, batch=1))
    assert trace.grid == (size[0] // 16, size[1] // 16)


def test_a_hybrid_refuses_sizes_that_its_grid_does_not_fit() -> None:
    options = {"img_size": 64, "depth": 2, "num_classes": 5, "dynamic_img_size": True}
    model = timm.create_model("vit_small_resnet50d_s16_224", **options).eval()
    reduced = tr.wrap(model, SOME)
    with pytest.raises(InputError, match="72×64"):
        reduced(_images(72, 64))


def test_another_input_size(lively: Any, same_run: Any) -> None:
    model = lively(VisionTransformer(**TINY)).eval()
    reduced = tr.wrap(model, NOTHING)
    model.set_input_size((48, 24))
    same_run(reduced, model, _images(48, 24))
    assert reduced.pos_embed is model.pos_embed


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("more", [{}, {"reg_tokens": 3}, {"pre_norm": True, "class_token": False}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_patch_dropout_says_what_it_kept(
    more: dict[str, Any], dtype: torch.dtype, lively: Any
) -> None:
    pool = {"global_pool": "avg"} if more.get("class_token") is False else {}
    # 18 × 18 patches: more places than one tag of 256 values can tell apart.
    arguments = TINY | {"img_size": 36, "patch_size": 2, "patch_drop_rate": 0.4} | more | pool
    model = lively(VisionTransformer(**arguments)).to(dtype).train()
    backbone = tr.wrap(model, NOTHING).backbone
    embedded = backbone.embed(_images(36, 36).to(dtype))
    kept = embedded.x[:, model.num_prefix_tokens :]
    assert embedded.index.shape == (3, int(324 * 0.6))
    assert kept.shape[1] == embedded.index.shape[1]
    at = embedded.index[..., None].expand(-1, -1, 32)
    assert torch.equal(kept, embedded.x0.gather(1, at))
    model.eval()
    embedded = backbone.embed(_images(36, 36).to(dtype))
    assert torch.equal(embedded.index, torch.arange(324).expand(3, -1))


@pytest.mark.parametrize("rate", [0.3, 0.6])
def test_patch_dropout(rate: float, lively: Any, same_run: Any) -> None:
    model = lively(VisionTransformer(**TINY, patch_drop_rate=rate)).train()
    same_run(tr.wrap(model, NOTHING), model, _images())
    reduced = tr.wrap(model, tr.strategy("gtp", P=1, M=2))
    _, trace = reduced.run_with_trace(_images())
    entered = int(16 * (1 - rate))
    assert trace.start_index.shape == (3, entered)
    assert trace.tokens_per_layer == (entered - 1, entered - 2, entered - 3)
    assert all(set(trace.index[i].tolist()) < set(trace.start_index[i].tolist()) for i in range(3))


def test_patch_dropout_leaves_too_few(lively: Any) -> None:
    model = lively(VisionTransformer(**TINY, patch_drop_rate=0.7)).train()
    reduced = tr.wrap(model, SOME)
    with pytest.raises(tr.errors.ScheduleError):
        reduced(_images())
    assert reduced.eval()(_images()).shape == (3, 5)


@pytest.mark.parametrize("strategy", [NOTHING, SOME, tr.strategy("tome", r=2)], ids=repr)
@pytest.mark.parametrize("training", [False, True])
def test_gradient_checkpointing(
    strategy: tr.Strategy, training: bool, lively: Any, same_run: Any
) -> None:
    drops = {"attn_drop_rate": 0.2, "drop_path_rate": 0.2, "proj_drop_rate": 0.2}
    models = [lively(VisionTransformer(**TINY, **drops)).train(training) for _ in range(2)]
    plain, saving = (tr.wrap(model, strategy) for model in models)
    saving.set_grad_checkpointing()
    assert models[1].grad_checkpointing
    same_run(saving, plain, _images())


def test_checkpointing_keeps_one_trace(lively: Any) -> None:
    model = lively(VisionTransformer(**TINY))
    model.set_grad_checkpointing()
    logits, trace = tr.wrap(model, SOME).run_with_trace(_images())
    logits.sum().backward()
    assert [step.layer for step in trace.steps] == [0, 1, 2]
    assert len(trace.features) == 3


@pytest.mark.parametrize("distilled_training", [False, True])
def test_distilled(distilled_training: bool, lively: Any, same: Any, same_run: Any) -> None:
    model = lively(VisionTransformerDistilled(**TINY | DISTILLED)).train()
    reduced = tr.wrap(model, NOTHING)
    reduced.set_distilled_training(distilled_training)
    same_run(reduced, model, _images())
    result = tr.wrap(model, SOME)(_images())
    assert isinstance(result, tuple) == distilled_training
    same_run(reduced.eval(), model, _images())
    assert tr.wrap(model, SOME)(_images()).shape == (3, 5)
    assert reduced.info.num_prefix == 2
    assert reduced.info.cls_index == 0


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["gtp", "tome", "evit", "topk", "random"])
def test_dtypes(dtype: torch.dtype, method: str, lively: Any, same: Any) -> None:
    model = lively(VisionTransformer(**TINY, qk_norm=True)).to(dtype).eval()
    images = _images().to(dtype)
    with torch.no_grad():
        same(tr.wrap(model, NOTHING)(images), model(images), 1e-5)
        logits = tr.wrap(model, _method(method))(images)
    assert logits.dtype == dtype
    assert logits.isfinite().all()


@pytest.mark.parametrize("method", ["gtp", "tome", "evit", "topk", "random"])
@pytest.mark.parametrize("training", [False, True])
def test_autocast(method: str, training: bool, lively: Any, same: Any) -> None:
    model = lively(VisionTransformer(**TINY)).train(training)
    with torch.autocast("cpu", torch.bfloat16):
        same(tr.wrap(model, NOTHING)(_images()), model(_images()), 1e-5)
        logits = tr.wrap(model, _method(method))(_images())
        assert logits.dtype == torch.bfloat16
        logits.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.eval()
    reduced = tr.wrap(model, _method("random"))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = reduced(_images())
    with torch.no_grad():
        same(low.float(), reduced(_images()), 0.1)


def _method(name: str) -> tr.Strategy:
    if name in ("gtp", "tome"):
        return SOME if name == "gtp" else tr.strategy("tome", r=2)
    return tr.strategy(name, layers=(0, 2), keep_rate=0.6)
