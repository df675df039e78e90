"""A model that is changed after it was wrapped: what runs is what it is now, or is refused."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
    checkpoint_wrapper,
)

import tokenred as tr
from tests.backbones.forms import FAMILIES, answer, blocks_of, images_for, lively, vit
from tokenred.core.errors import BackboneError, TokenredError

GTP = tr.strategy("gtp", P=2, M=3)
NAMES = tr.list_strategies()
LEARNED = pytest.mark.parametrize("name", ["dynamicvit", "mstm"])
pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return lively(FAMILIES[request.param]()).eval()


def _deep() -> Any:
    return vit(depth=6, img_size=64)


def _same(reduced: tr.ReducedViT, images: Tensor | None = None) -> None:
    """Runs as the model would if it were wrapped now."""
    anew = tr.wrap(reduced.base, reduced.strategy)
    anew.load_state_dict(reduced.state_dict())
    images = images_for(reduced) if images is None else images
    with torch.no_grad():
        assert bool((answer(reduced(images)) == answer(anew(images))).all())
    assert reduced.info == anew.info
    assert tr.gmacs(reduced) == tr.gmacs(anew)
    assert repr(reduced) == repr(anew)


# ---------------------------------------------------------------- blocks


def _cut(blocks: Any) -> None:
    del blocks[2:]


def _replace(blocks: Any) -> None:
    other = copy.deepcopy(blocks[0])
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.5)
    blocks[1] = other


def _append(blocks: Any) -> None:
    blocks.append(copy.deepcopy(blocks[0]))


def _write(blocks: Any) -> None:
    blocks._modules["1"] = copy.deepcopy(blocks[2])


@pytest.mark.parametrize("change", [_cut, _replace, _append, _write])
def test_blocks(model: Any, change: Callable[[Any], None]) -> None:
    reduced = tr.wrap(model, GTP)
    with torch.no_grad():
        before = answer(reduced(images_for(model)))
        change(blocks_of(model))
        assert not torch.equal(before, answer(reduced(images_for(model))))
    _same(reduced)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_goes_by_the_model_now(name: str) -> None:
    model = _deep()
    reduced = tr.wrap(model, name)
    reduced(images_for(model))
    kept = dict(reduced.parts.named_parameters()) if hasattr(reduced, "parts") else {}
    costs = tr.gmacs(reduced)
    reduced.reset_classifier(17)
    assert reduced(images_for(model)).shape == (2, 17)
    assert round((tr.gmacs(reduced) - costs) * 1e9) == 32 * 12
    model.blocks = model.blocks[:5]
    _same(reduced)
    _append(model.blocks)
    _append(model.blocks)
    _same(reduced)
    # Learned parts keep their weights.
    now = dict(reduced.parts.named_parameters()) if kept else {}
    assert now.keys() == kept.keys()
    assert all(now[k] is kept[k] for k in kept)


def test_a_strategy_that_does_not_fit_any_more_is_refused_before_anything_runs() -> None:
    model = vit(img_size=32)
    reduced = tr.wrap(model, tr.strategy("gtp", P=5, M=3))
    _append(model.blocks)
    ran: list[Any] = []
    model.patch_embed.register_forward_hook(lambda *a: ran.append(a))
    for use in (reduced, lambda x: reduced.cost(), lambda x: repr(reduced)):
        with pytest.raises(TokenredError, match="block 3"):
            use(images_for(model))
    assert not ran
    del model.blocks[3:]
    _same(reduced)


def test_identity_in_the_place_of_a_block(model: Any) -> None:
    reduced = tr.wrap(model, tr.strategy("topk", layers=(2,), keep_rate=0.5))
    blocks_of(model)[0] = nn.Identity()
    _same(reduced)
    blocks_of(model)[2] = nn.Identity()
    with pytest.raises(BackboneError, match=r"2 \(Identity\): an nn.Identity has no attention"):
        reduced(images_for(model))


def test_identity_under_proportional_attention() -> None:
    reduced = tr.wrap(vit(), tr.strategy("tome", r=[2, 0, 2], proportional_attention=True))
    reduced.blocks[1] = nn.Identity()
    _same(reduced)
    assert reduced.cost().layers[1].macs == 0


def test_compiled_blocks() -> None:
    ran: list[Any] = []

    def backend(graph: Any, example: Any) -> Any:
        ran.append(graph)
        return graph.forward

    torch._dynamo.reset()
    reduced = tr.wrap(vit(), tr.strategy("topk", layers=(2,), keep_rate=0.5))
    with torch.no_grad():
        before = reduced(images_for(reduced))
        reduced.blocks[0] = torch.compile(reduced.blocks[0], backend=backend)
        torch.testing.assert_close(reduced(images_for(reduced)), before)
        assert len(ran) == 1
        inside = reduced.blocks[2]
        reduced.blocks[2] = torch.compile(inside, backend=backend)
        with pytest.raises(BackboneError, match=r"blocks.2 \(OptimizedModule\).*compile the red"):
            reduced(images_for(reduced))
        reduced.blocks[2] = inside
        inside.compile(backend=backend)
        with pytest.raises(BackboneError, match=r"blocks.2 \(Block\).*compile the reduced"):
            reduced(images_for(reduced))
    torch._dynamo.reset()


@pytest.mark.parametrize("wrapped", ["all", "one"])
def test_checkpointed_blocks(model: Any, wrapped: str) -> None:
    blocks = blocks_of(model)
    kind = type(blocks[0])
    reduced = tr.wrap(model, GTP)
    expected = _gradients(reduced)
    if wrapped == "all":
        apply_activation_checkpointing(reduced, check_fn=lambda m: isinstance(m, kind))
    else:
        blocks[1] = checkpoint_wrapper(blocks[1])
    runs: list[Any] = []
    inner = blocks[1]._checkpoint_wrapped_module
    next(m for m in inner.modules() if isinstance(m, nn.LayerNorm)).register_forward_pre_hook(
        lambda *a: runs.append(1)
    )
    got = _gradients(reduced)
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient)
    assert len(runs) == 2  # once more in the backward
    assert tr.gmacs(reduced) == tr.gmacs(tr.wrap(model, GTP))


def _gradients(reduced: Any) -> dict[str, Tensor]:
    reduced.zero_grad()
    answer(reduced(images_for(reduced))).square().sum().backward()
    found = {n: p.grad.clone() for n, p in reduced.named_parameters() if p.grad is not None}
    return {n.replace("_checkpoint_wrapped_module.", ""): g for n, g in found.items()}


def test_pruned_blocks_keep_their_plans_until_others_are_cut() -> None:
    model = vit(depth=6)
    reduced = tr.wrap(model, tr.strategy("evit", keep_rate=0.5))
    counts = [x.removed for x in reduced.cost().layers]
    reduced.prune_intermediate_layers(range(4), prune_head=False)
    reduced.reset_classifier(3)
    assert [x.removed for x in reduced.cost().layers] == counts[:4]
    assert reduced(images_for(model)).shape == (2, 3)
    del model.blocks[3:]
    _same(reduced)


# ---------------------------------------------------------------- the rest of the model


def test_another_attention() -> None:
    reduced = tr.wrap(vit(), GTP)
    images, attn = images_for(reduced), reduced.blocks[0].attn
    before = reduced(images)
    attn.scale *= 3
    assert not torch.equal(before, reduced(images))
    _same(reduced)
    attn.num_heads, attn.head_dim, attn.scale = 8, 4, 4**-0.5
    _same(reduced)
    reduced.blocks[1].attn = Attention(32, num_heads=2, qkv_bias=True).eval()
    assert reduced.blocks[1].attn.num_heads == 2
    _same(reduced)
    reduced.blocks[1].attn = nn.Linear(32, 32)
    with pytest.raises(BackboneError, match="attention Linear in Block is not known"):
        reduced(images)


def test_another_convolution() -> None:
    model = vit()
    reduced = tr.wrap(model, GTP)
    model.patch_embed.proj = nn.Conv2d(5, 32, 8, 8)
    _same(reduced)
    _same(tr.wrap(model, GTP))
    assert reduced.info.channels == 5


@pytest.mark.filterwarnings("ignore::UserWarning")  # of timm's resizing
@pytest.mark.parametrize("family", ["vit", "distilled", "eva", "beit"])
def test_another_size(family: str) -> None:
    reduced = tr.wrap(FAMILIES[family]().eval(), GTP)
    reduced(images_for(reduced))
    reduced.set_input_size((48, 64))
    assert reduced.info.grid == (6, 8)
    _same(reduced, torch.randn(2, 3, 48, 64))


# ---------------------------------------------------------------- learned parts


@LEARNED
@pytest.mark.parametrize("change", ["half", "double", "meta"])
def test_learned_parts_follow_the_base(name: str, change: str) -> None:
    model = _deep()
    reduced = tr.wrap(model, name)
    model.to("meta") if change == "meta" else getattr(model, change)()
    weight = model.cls_token
    images = torch.zeros(2, 3, 64, 64).to(weight.device, weight.dtype)
    with torch.no_grad():
        assert reduced(images).dtype == weight.dtype
    places = {(p.dtype, p.device) for p in reduced.parts.parameters()}
    assert places == {(weight.dtype, weight.device)}


def test_learned_parts_that_do_not_fit_are_refused() -> None:
    model = _deep()
    reduced = tr.wrap(model, "mstm")
    weights = {k: v.clone() for k, v in reduced.parts.state_dict().items()}
    model.patch_embed.proj = nn.Conv2d(5, 32, 8, 8)
    with pytest.raises(BackboneError, match=r"embedding no longer fit.*Wrap it again"):
        reduced(torch.randn(2, 5, 64, 64))
    after = reduced.parts.state_dict()
    assert all(bool((after[k] == v).all()) for k, v in weights.items())


def test_learned_parts_that_were_swapped_run() -> None:
    model = _deep()
    reduced = tr.wrap(model, "mstm")
    before = reduced(images_for(model))
    other = copy.deepcopy(reduced.parts["embedding"])
    nn.init.normal_(other.project.weight)
    reduced.parts["embedding"] = other
    assert not torch.equal(before, reduced(images_for(model)))
    del reduced.parts["embedding"]
    with pytest.raises(BackboneError, match=r"parts\.embedding was deleted"):
        reduced(images_for(model))
    model.parts = nn.Linear(2, 2)
    with pytest.raises(BackboneError, match="an attribute called parts"):
        tr.wrap(model, "mstm")
    assert isinstance(model.parts, nn.Linear)


# ---------------------------------------------------------------- graphs


def _compiled_notices(depth: int, *changes: Callable[[Any], Any]) -> None:
    torch._dynamo.reset()
    reduced = tr.wrap(vit(depth=depth), tr.strategy("topk", layers=(0,), keep_rate=0.5))
    images = images_for(reduced)
    compiled: Any = torch.compile(reduced, backend="eager", fullgraph=True)
    with torch.no_grad():
        compiled(images)
        for change in changes:
            change(reduced)
            expected = reduced(images)
            torch.testing.assert_close(compiled(images), expected, atol=1e-5, rtol=1e-5)
        reduced.blocks[0].attn.forward = lambda x: x
        with pytest.raises(RuntimeError, match="was set on the instance"):  # the compiler's
            compiled(images)
    torch._dynamo.reset()


def test_a_compiled_model_notices() -> None:
    _compiled_notices(1, lambda reduced: reduced.reset_classifier(7))


@pytest.mark.slow
def test_a_compiled_model_notices_every_change() -> None:
    _compiled_notices(
        3,
        lambda reduced: _replace(reduced.blocks),
        lambda reduced: reduced._modules.update(head=nn.Linear(32, 3)),
        lambda reduced: _cut(reduced.blocks),
    )


@pytest.mark.slow
def test_an_export_is_of_the_model_as_it_is() -> None:
    reduced = tr.wrap(vit(), GTP)
    _replace(reduced.blocks)
    with torch.no_grad():
        program = torch.export.export(reduced, (images_for(reduced),), strict=False)
        got = program.module()(images_for(reduced))
        torch.testing.assert_close(got, reduced(images_for(reduced)), atol=1e-5, rtol=1e-5)
