"""timm's Eva in its forms: nothing removed is nothing changed, and positions go with tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.layers import LayerNorm
from timm.models.eva import Eva, EvaAttention, EvaBlock
from torch import Tensor
from torch._dynamo.testing import CompileCounter

import tokenred as tr
from tests.backbones.eva_forms import DROPOUT, FORMS, TINY, build, images_of
from tests.backbones.steps import in_steps, removed_and_masked
from tokenred.attention import FusedEngine, PlainEngine
from tokenred.backbones.eva import EvaBackbone, Rotary
from tokenred.core.errors import BackboneError
from tokenred.core.state import TokenState

NOTHING = tr.strategy("gtp", P=0)
SOME = tr.strategy("gtp", P=2, M=3)


# ---------------------------------------------------------------- nothing removed


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_nothing_removed(form: str, training: bool, lively: Any, same_run: Any) -> None:
    model = lively(build(form, **DROPOUT)).train(training)
    same_run(tr.wrap(model, NOTHING), model, images_of(model))


@pytest.mark.parametrize("form", FORMS)
def test_opened(form: str, lively: Any, untouched: Any, same: Any, same_run: Any) -> None:
    model = lively(build(form)).double()
    reduced = tr.wrap(model, tr.Strategy("Random", score_mods=(untouched,)))
    images = images_of(model).double()
    same_run(reduced, model, images, tolerance=1e-12)
    with torch.no_grad():
        state, _ = reduced._start(images)
        for layer, block in enumerate(reduced.backbone.blocks):
            for engine in (PlainEngine(), FusedEngine()):
                got, expected = in_steps(block, state, layer, engine)
                same(got - state.x, expected - state.x, 1e-12)
                alone = block.heads(state.x)
                assert torch.equal(alone.v, block.qkv_of(state).v)


@pytest.mark.parametrize("form", FORMS)
def test_tokens_go(form: str, lively: Any) -> None:
    model = lively(build(form, **DROPOUT))
    logits, trace = tr.wrap(model.train(), SOME).run_with_trace(images_of(model))
    assert logits.isfinite().all()
    rows, columns = trace.grid
    assert (rows * 8, columns * 8) == tuple(model.patch_embed.img_size)
    assert trace.tokens_per_layer == tuple(rows * columns - 2 * i for i in (1, 2, 3))
    logits.sum().backward()
    learned = [name for name, p in model.named_parameters() if p.grad is not None]
    assert any(name.startswith("blocks.0.attn") for name in learned)
    assert ("rope.freqs" in learned) == (form == "mixed")


@pytest.mark.parametrize("rate", [0.3, 0.6])
@pytest.mark.parametrize("form", ["no rotary positions", "rotary", "mixed", "registers"])
def test_patch_dropout(form: str, rate: float, lively: Any, same_run: Any) -> None:
    model = lively(build(form, patch_drop_rate=rate, **DROPOUT)).train()
    same_run(tr.wrap(model, NOTHING), model, images_of(model))
    _, trace = tr.wrap(model, tr.strategy("gtp", P=1, M=2)).run_with_trace(images_of(model))
    entered = int(16 * (1 - rate))
    assert trace.start_index.shape == (3, entered)
    assert trace.tokens_per_layer == (entered - 1, entered - 2, entered - 3)
    same_run(tr.wrap(model.eval(), NOTHING), model, images_of(model))


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (64, 16)])
@pytest.mark.parametrize("form", ["rotary", "mixed", "dinov3", "mrope", "registers"])
def test_dynamic_size(form: str, size: tuple[int, int], lively: Any, same_run: Any) -> None:
    model = lively(build(form, dynamic_img_size=True)).eval()
    images = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(5))
    same_run(tr.wrap(model, NOTHING), model, images)
    _, trace = tr.wrap(model, SOME).run_with_trace(images)
    assert trace.grid == (size[0] // 8, size[1] // 8)


@pytest.mark.parametrize("form", ["rotary", "mixed", "dinov3"])
def test_another_input_size(form: str, lively: Any, same_run: Any) -> None:
    model = lively(build(form)).eval()
    if not hasattr(model, "set_input_size"):
        pytest.skip("this version of timm cannot change the size")
    reduced = tr.wrap(model, NOTHING)
    model.set_input_size((48, 24))
    same_run(reduced, model, images_of(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", ["rotary", "mixed"])
def test_low_precision(form: str, dtype: torch.dtype, lively: Any, same: Any) -> None:
    model = lively(build(form)).to(dtype).eval()
    images = images_of(model).to(dtype)
    with torch.no_grad():
        same(tr.wrap(model, NOTHING)(images), model(images))
        assert tr.wrap(model, SOME)(images).dtype == dtype


def test_gradient_checkpointing(lively: Any, same_run: Any) -> None:
    models = [lively(build("mixed", **DROPOUT)).train() for _ in range(2)]
    plain, saving = (tr.wrap(model, SOME) for model in models)
    saving.set_grad_checkpointing()
    same_run(saving, plain, images_of(models[0]))


# ---------------------------------------------------------------- positions go with tokens


def _masked(model: Eva, images: Tensor) -> Any:
    with torch.no_grad():
        _, rope = model._pos_embed(model.patch_embed(images))

    def run(layer: int, x: Tensor, bias: Tensor) -> Tensor:
        own = rope[layer] if getattr(model, "rope_mixed", False) else rope
        full = bias.expand(-1, -1, x.shape[1], -1)
        return model.blocks[layer](x, rope=own, attn_mask=full)

    return run


@pytest.mark.parametrize("statistics", [False, True], ids=["closed", "opened"])
@pytest.mark.parametrize("form", [name for name in FORMS if name != "one channel"])
def test_removed_is_masked(
    form: str, statistics: bool, lively: Any, untouched: Any, same: Any
) -> None:
    model = lively(build(form)).double().eval()
    images = images_of(model).double()
    if form == "wide image":
        assert model.patch_embed.grid_size == (2, 6)
    score_mods = {"score_mods": (untouched,)} if statistics else {}
    got, expected = removed_and_masked(model, images, _masked(model, images), **score_mods)
    same(got, expected, 1e-12)


# ---------------------------------------------------------------- about it


@pytest.mark.parametrize("form", ["rotary", "mixed"])
def test_one_graph(form: str, lively: Any, same: Any) -> None:
    model = build(form, depth=2)
    reduced = tr.wrap(lively(model).eval(), SOME)
    torch._dynamo.reset()
    graphs = CompileCounter()
    compiled: Any = torch.compile(reduced, fullgraph=True, backend=graphs)
    with torch.no_grad():
        for batch in (3, 3):
            images = images_of(reduced.base, batch)
            same(compiled(images), reduced(images))
    assert graphs.frame_count == 1
    torch._dynamo.reset()


@pytest.mark.slow
def test_any_batch_in_one_export(lively: Any, same: Any) -> None:
    reduced = tr.wrap(lively(build("mixed", depth=2)).eval(), SOME)
    shapes = ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        program = torch.export.export(reduced, (images_of(reduced.base),), dynamic_shapes=shapes)
        images = images_of(reduced.base, 5)
        same(program.module()(images), reduced(images))


def test_a_subclass_that_changes_something() -> None:
    class OwnEmbedding(Eva):
        def _pos_embed(self, x: Tensor) -> Any:
            return super()._pos_embed(x)

    class Renamed(Eva):
        extra = 1

    with pytest.raises(BackboneError, match=r"OwnEmbedding.*Known: .*Eva.*Beit"):
        tr.wrap(OwnEmbedding(**TINY), SOME)
    assert type(tr.wrap(Renamed(**TINY), SOME).backbone) is EvaBackbone


def test_unknown_parts() -> None:
    class OwnBlock(EvaBlock):
        def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            return super().forward(*args, **kwargs)

    class OwnAttention(EvaAttention):
        def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            return super().forward(*args, **kwargs)

    model = Eva(**TINY)
    model.blocks[1] = OwnBlock(32, 4)
    with pytest.raises(BackboneError, match=r"OwnBlock\.forward is not EvaBlock's"):
        tr.wrap(model, SOME)
    model = Eva(**TINY)
    model.blocks[2].attn = OwnAttention(32, 4, norm_layer=LayerNorm)
    with pytest.raises(BackboneError, match=r"OwnAttention\.forward is not EvaAttention's"):
        tr.wrap(model, SOME)


@pytest.mark.parametrize("pool", ["token", "avg", "max", "map"])
def test_weights_of_tokens(pool: str, lively: Any) -> None:
    backbone = tr.backbones.adapt(lively(Eva(**TINY, global_pool=pool)).double().eval())
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(2, 10, 32, generator=draw).double()
    mask = torch.tensor([[1.0] * 5 + [0.0] * 5, [1.0, 0.0] * 5]).double()
    got = backbone.head(x, weight=mask)
    for i in range(2):
        torch.testing.assert_close(got[i : i + 1], backbone.head(x[i : i + 1, mask[i] > 0]))


@pytest.mark.parametrize("shape", [(12, 16), (3, 2, 12, 16)], ids=["one", "each block and head"])
def test_rotary_of_places(shape: tuple[int, ...]) -> None:
    rope = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    index = torch.arange(12).expand(2, 12)
    rotary = Rotary.of(rope, index)
    at = torch.tensor([[4, 0, -1], [11, -1, 2]])
    layer = 1
    own = rope if rope.ndim == 2 else rope[layer]
    state = TokenState(torch.zeros(2, 12, 1), index, 0, (3, 4), layer=layer)
    assert torch.equal(rotary.at(state), own)
    moved = rotary.at(replace(state, index=at))
    heads = 1 if rope.ndim == 2 else 2
    assert moved.shape == (2, heads, 3, 16)
    still = torch.cat((torch.zeros(8), torch.ones(8)))
    for b in range(2):
        for i, place in enumerate(at[b].tolist()):
            expected = own[..., place, :] if place >= 0 else still
            assert torch.equal(moved[b, :, i], expected.expand(heads, 16))
