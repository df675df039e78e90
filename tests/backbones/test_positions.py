"""Positions that enter the attention (rotary, relative biases) go with the tokens."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import tokenred as tr
from tests.backbones.checks import NOTHING, OPENED, removed_and_masked, same, same_run
from tests.backbones.forms import BEIT, EVA, build, images_for
from tokenred.backbones.beit import bias_at
from tokenred.backbones.eva import Rotary
from tokenred.core.state import TokenState

FORMS = [f"eva: {name}" for name in EVA] + [f"beit: {name}" for name in BEIT]


def _timm_block(model: Any, images: Tensor) -> Any:
    """One block of timm's, told which tokens are gone."""
    if hasattr(model, "rel_pos_bias"):  # BEiT, which adds what it is given as the shared bias
        shared = 0 if model.rel_pos_bias is None else model.rel_pos_bias().detach()

        def run(layer: int, x: Tensor, bias: Tensor) -> Tensor:
            full = bias.expand(-1, -1, x.shape[1], -1)
            return model.blocks[layer](x, shared_rel_pos_bias=full + shared)  # type: ignore

        return run
    with torch.no_grad():
        _, rope = model._pos_embed(model.patch_embed(images))

    def turned(layer: int, x: Tensor, bias: Tensor) -> Tensor:
        own = rope[layer] if getattr(model, "rope_mixed", False) else rope
        full = bias.expand(-1, -1, x.shape[1], -1)
        return model.blocks[layer](x, rope=own, attn_mask=full)  # type: ignore

    return turned


@pytest.mark.parametrize("opened", [False, True], ids=["closed", "opened"])
@pytest.mark.parametrize("form", FORMS)
def test_removed_is_masked(form: str, opened: bool) -> None:
    model = build(form).double().eval()
    images = images_for(model)
    score_mods = {"score_mods": OPENED.score_mods} if opened else {}
    got, expected = removed_and_masked(model, images, _timm_block(model, images), **score_mods)
    same(got, expected, 1e-12)


@pytest.mark.parametrize("shape", [(12, 16), (3, 2, 12, 16)], ids=["one", "each block and head"])
def test_rotary_of_places(shape: tuple[int, ...]) -> None:
    rope = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    index = torch.arange(12).expand(2, 12)
    rotary = Rotary.of(rope, index)
    at = torch.tensor([[4, 0, -1], [11, -1, 2]])
    own = rope if rope.ndim == 2 else rope[1]
    state = TokenState(torch.zeros(2, 12, 1), index, 0, (3, 4), layer=1)
    assert torch.equal(rotary.at(state), own)
    moved = rotary.at(replace(state, index=at))
    heads = 1 if rope.ndim == 2 else 2
    assert moved.shape == (2, heads, 3, 16)
    still = torch.cat((torch.zeros(8), torch.ones(8)))
    for b in range(2):
        for i, place in enumerate(at[b].tolist()):
            expected = own[..., place, :] if place >= 0 else still
            assert torch.equal(moved[b, :, i], expected.expand(heads, 16))


def test_bias_of_places() -> None:
    bias = torch.randn(2, 7, 7, generator=torch.Generator().manual_seed(0))
    taken = bias_at(bias, torch.tensor([[4, 0, -1], [5, -1, 2]]))
    assert taken.shape == (2, 2, 4, 4)
    # The class token first; a token of no single patch is like it.
    for b, places in enumerate([[0, 5, 1, 0], [0, 6, 0, 3]]):
        for i, row in enumerate(places):
            for j, column in enumerate(places):
                assert torch.equal(taken[b, :, i, j], bias[:, row, column])


def test_engines_agree_on_a_biased_map() -> None:
    model = build("beit: own bias").double().eval()
    strategy = tr.strategy("gtp", P=2, M=3, theta=0.6)
    with torch.no_grad():
        expected = tr.wrap(model, strategy, engine="plain")(images_for(model))
        for engine in ("auto", "tiled", "two_calls"):
            same(tr.wrap(model, strategy, engine=engine)(images_for(model)), expected, 1e-12)


# ---------------------------------------------------------------- patch dropout


@pytest.mark.parametrize("rate", [0.3, 0.6])
@pytest.mark.parametrize(
    "form", ["vit: pre-norm block", "eva: rotary", "eva: mixed", "eva: registers", "lvvit: plain"]
)
def test_patch_dropout(form: str, rate: float) -> None:
    model = build(form, dropout=True, patch_drop_rate=rate).train()
    same_run(tr.wrap(model, NOTHING), model, images_for(model))
    reduced = tr.wrap(model, tr.strategy("gtp", P=1, M=2))
    _, trace = reduced.run_with_trace(images_for(model))
    entered = int(16 * (1 - rate))
    assert trace.start_index.shape == (2, entered)
    assert trace.tokens_per_layer == tuple(entered - i - 1 for i in range(reduced.info.depth))
    assert all(set(trace.index[i].tolist()) < set(trace.start_index[i].tolist()) for i in range(2))
    same_run(tr.wrap(model.eval(), NOTHING), model, images_for(model))


@pytest.mark.parametrize("more", [{}, {"reg_tokens": 3}, {"pre_norm": True, "class_token": False}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_patch_dropout_says_what_it_kept(more: dict[str, Any], dtype: torch.dtype) -> None:
    pool = {"global_pool": "avg"} if more.get("class_token") is False else {}
    # 18 × 18 patches: more places than one tag of 256 values can tell apart.
    sizes = {"img_size": 36, "patch_size": 2, "patch_drop_rate": 0.4}
    model = build("vit: pre-norm block", **sizes, **more, **pool).to(dtype).train()
    backbone = tr.wrap(model, NOTHING).backbone
    embedded = backbone.embed(images_for(model))
    kept = embedded.x[:, model.num_prefix_tokens :]
    assert embedded.index.shape == (2, int(324 * 0.6))
    at = embedded.index[..., None].expand(-1, -1, 32)
    assert torch.equal(kept, embedded.x0.gather(1, at))
    model.eval()
    assert torch.equal(backbone.embed(images_for(model)).index, torch.arange(324).expand(2, -1))


def test_patch_dropout_leaves_too_few() -> None:
    model = build("vit: pre-norm block", patch_drop_rate=0.7).train()
    reduced = tr.wrap(model, tr.strategy("gtp", P=3, M=3))
    with pytest.raises(tr.errors.ScheduleError):
        reduced(images_for(model))
    assert reduced.eval()(images_for(model)).shape == (2, 5)
