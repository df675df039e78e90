"""A model that is changed after it was wrapped: what runs is what it is now, or is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
    checkpoint_wrapper,
)

import tokenred as tr
from tests.backbones.forms import FAMILIES, TINY, answer, blocks_of, images_for
from tokenred.core.errors import BackboneError, TokenredError

GTP = tr.strategy("gtp", P=2, M=3)
NAMES = tr.list_strategies()
pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _model(family: str = "vit", seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = FAMILIES[family]().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model


def _same(reduced: tr.ReducedViT, images: Tensor | None = None) -> None:
    """Runs as the model would if it were wrapped now."""
    anew = tr.wrap(reduced.base, reduced.strategy)
    for name, part in anew._setup.learned.items():
        part.load_state_dict(reduced._setup.learned[name].state_dict())
    images = images_for(reduced) if images is None else images
    with torch.no_grad():
        expected = answer(anew(images))
        got = answer(reduced(images))
    assert bool((got == expected).all())
    assert reduced.info == anew.info
    assert tr.gmacs(reduced) == tr.gmacs(anew)
    assert repr(reduced) == repr(anew)


# ---------------------------------------------------------------- blocks


def _cut(reduced: Any, blocks: Any) -> None:
    del blocks[2:]


def _replace(reduced: Any, blocks: Any) -> None:
    other = copy.deepcopy(blocks[0])
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.5)
    blocks[1] = other


def _append(reduced: Any, blocks: Any) -> None:
    blocks.append(copy.deepcopy(blocks[0]))


def _write(reduced: Any, blocks: Any) -> None:
    blocks._modules["1"] = copy.deepcopy(blocks[2])


CHANGES: dict[str, Callable[[Any, Any], None]] = {
    "cut": _cut,
    "replaced": _replace,
    "appended": _append,
    "written": _write,
}


@pytest.mark.parametrize("change", CHANGES)
def test_blocks(family: str, change: str) -> None:
    reduced = tr.wrap(_model(family), GTP)
    with torch.no_grad():
        before = answer(reduced(images_for(reduced)))
        CHANGES[change](reduced, blocks_of(reduced.base))
        assert not torch.equal(before, answer(reduced(images_for(reduced))))
    _same(reduced)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", ["cut", "appended"])
def test_every_recipe_goes_by_the_depth_now(name: str, change: str) -> None:
    model = VisionTransformer(**TINY | {"depth": 6, "img_size": 64}).eval()
    reduced = tr.wrap(model, name)
    reduced(images_for(model))
    if change == "cut":
        model.blocks = model.blocks[:5]
    else:
        model.blocks.append(copy.deepcopy(model.blocks[0]))
    _same(reduced)


def test_a_strategy_that_does_not_fit_any_more_is_refused_before_anything_runs() -> None:
    model = _model()
    reduced = tr.wrap(model, tr.strategy("gtp", P=5, M=3))
    blocks = list(model.blocks)
    model.blocks.append(copy.deepcopy(blocks[0]))
    ran: list[Any] = []
    handle = model.patch_embed.register_forward_hook(lambda *a: ran.append(a))
    for use in (reduced, lambda x: reduced.cost(), lambda x: repr(reduced)):
        with pytest.raises(TokenredError, match="block 3"):
            use(images_for(model))
    assert not ran
    handle.remove()
    del model.blocks[3:]
    _same(reduced)


def test_identity_in_the_place_of_a_block(family: str) -> None:
    reduced = tr.wrap(_model(family), tr.strategy("topk", layers=(2,), keep_rate=0.5))
    blocks_of(reduced.base)[0] = nn.Identity()
    _same(reduced)
    blocks_of(reduced.base)[2] = nn.Identity()
    with pytest.raises(BackboneError, match=r"2 \(Identity\): an nn.Identity has no attention"):
        reduced(images_for(reduced))


def test_identity_under_proportional_attention() -> None:
    strategy = tr.strategy("tome", r=[2, 0, 2], proportional_attention=True)
    reduced = tr.wrap(_model(), strategy)
    reduced.blocks[1] = nn.Identity()
    _same(reduced)
    assert reduced.cost().layers[1].macs == 0


def test_compiled_blocks() -> None:
    ran: list[Any] = []

    def backend(graph: Any, example: Any) -> Any:
        ran.append(graph)
        return graph.forward

    torch._dynamo.reset()
    reduced = tr.wrap(_model(), tr.strategy("topk", layers=(2,), keep_rate=0.5))
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
def test_checkpointed_blocks(family: str, wrapped: str) -> None:
    model = _model(family)
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
    model = VisionTransformer(**TINY | {"depth": 6}).eval()
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
    reduced = tr.wrap(_model(), GTP)
    before = reduced(images_for(reduced))
    reduced.blocks[1].attn = Attention(32, num_heads=2, qkv_bias=True).eval()
    assert not torch.equal(before, reduced(images_for(reduced)))
    _same(reduced)

    class Strange(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    reduced.blocks[1].attn = Strange()
    with pytest.raises(BackboneError, match="attention Strange in Block is not known"):
        reduced(images_for(reduced))


@pytest.mark.parametrize("attribute", ["num_heads", "scale"])
def test_plain_attributes_of_the_attention(attribute: str) -> None:
    reduced = tr.wrap(_model(), GTP)
    before = reduced(images_for(reduced))
    attn = reduced.blocks[0].attn
    if attribute == "scale":
        attn.scale *= 3
    else:
        attn.num_heads, attn.head_dim, attn.scale = 8, 4, 4**-0.5
    assert not torch.equal(before, reduced(images_for(reduced)))
    _same(reduced)


def test_another_convolution() -> None:
    model = _model()
    reduced = tr.wrap(model, GTP)
    model.patch_embed.proj = nn.Conv2d(5, 32, 8, 8)
    images = torch.randn(2, 5, 32, 32)
    _same(reduced, images)
    _same(tr.wrap(model, GTP), images)
    assert reduced.info.channels == 5


@pytest.mark.filterwarnings("ignore::UserWarning")  # of timm's resizing
@pytest.mark.parametrize("family", ["vit", "distilled", "eva", "beit"])
def test_another_size(family: str) -> None:
    reduced = tr.wrap(_model(family), GTP)
    reduced(images_for(reduced))
    reduced.set_input_size((48, 64))
    assert reduced.info.grid == (6, 8)
    _same(reduced, torch.randn(2, 3, 48, 64))


@pytest.mark.parametrize("name", NAMES)
def test_another_classifier(name: str) -> None:
    model = VisionTransformer(**TINY | {"depth": 6, "img_size": 64}).eval()
    reduced = tr.wrap(model, name)
    before = tr.gmacs(reduced)
    parts = dict(reduced._setup.learned)
    reduced.reset_classifier(17)
    assert reduced(images_for(model)).shape == (2, 17)
    assert round((tr.gmacs(reduced) - before) * 1e9) == 32 * 12
    assert all(reduced._setup.learned[k] is m for k, m in parts.items())
    _same(reduced)


# ---------------------------------------------------------------- learned parts

LEARNED = ["dynamicvit", "mstm"]


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("change", ["half", "double", "meta"])
def test_learned_parts_follow_the_base(name: str, change: str) -> None:
    model = VisionTransformer(**TINY | {"depth": 6, "img_size": 64}).eval()
    reduced = tr.wrap(model, name)
    model.to("meta") if change == "meta" else getattr(model, change)()
    weight = model.cls_token
    images = torch.zeros(2, 3, 64, 64).to(weight.device, weight.dtype)
    with torch.no_grad():
        assert reduced(images).dtype == weight.dtype
    assert {(p.dtype, p.device) for p in reduced.parts.parameters()} == {
        (weight.dtype, weight.device)
    }


@pytest.mark.parametrize("name", LEARNED)
def test_learned_parts_keep_their_weights(name: str) -> None:
    model = VisionTransformer(**TINY | {"depth": 6, "img_size": 64}).eval()
    reduced = tr.wrap(model, name)
    kept = dict(reduced.parts.named_parameters())
    del model.blocks[5:]
    _same(reduced)
    now = dict(reduced.parts.named_parameters())
    assert now.keys() == kept.keys()
    assert all(now[k] is kept[k] for k in kept)


def test_learned_parts_that_do_not_fit_are_refused() -> None:
    model = VisionTransformer(**TINY | {"depth": 6, "img_size": 64}).eval()
    reduced = tr.wrap(model, "mstm")
    weights = {k: v.clone() for k, v in reduced.parts.state_dict().items()}
    model.patch_embed.proj = nn.Conv2d(5, 32, 8, 8)
    with pytest.raises(BackboneError, match=r"embedding do not fit.*Wrap it anew"):
        reduced(torch.randn(2, 5, 64, 64))
    after = reduced.parts.state_dict()
    assert all(bool((after[k] == v).all()) for k, v in weights.items())


def test_learned_parts_that_were_swapped_run() -> None:
    model = VisionTransformer(**TINY | {"depth": 6, "img_size": 64}).eval()
    reduced = tr.wrap(model, "mstm")
    before = reduced(images_for(model))
    other = copy.deepcopy(reduced.parts["embedding"])
    nn.init.normal_(other.project.weight)
    reduced.parts["embedding"] = other
    assert not torch.equal(before, reduced(images_for(model)))
    del reduced.parts["embedding"]
    with pytest.raises(BackboneError, match=r"parts\.embedding was deleted"):
        reduced(images_for(model))


def test_a_base_with_parts_of_its_own() -> None:
    model = VisionTransformer(**TINY | {"depth": 6, "img_size": 64}).eval()
    model.parts = nn.Linear(2, 2)
    with pytest.raises(BackboneError, match="something called parts"):
        tr.wrap(model, "mstm")
    assert isinstance(model.parts, nn.Linear)


# ---------------------------------------------------------------- copies and graphs


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_is_a_model_of_its_own(copied: Callable[[Any], Any]) -> None:
    reduced = tr.wrap(_model(), GTP)
    twin = copied(reduced)
    _same(twin)
    before = reduced(images_for(reduced))
    del twin.base.blocks[2:]
    twin.reset_classifier(3)
    _same(twin)
    assert torch.equal(reduced(images_for(reduced)), before)


def test_a_compiled_model_notices() -> None:
    torch._dynamo.reset()
    reduced = tr.wrap(_model(), GTP)
    compiled: Any = torch.compile(reduced, backend="eager", fullgraph=True)

    with torch.no_grad():
        for change in (
            lambda: None,
            lambda: _replace(reduced, reduced.blocks),
            lambda: reduced.reset_classifier(7),
            lambda: reduced._modules.update(head=nn.Linear(32, 3)),
            lambda: _cut(reduced, reduced.blocks),
        ):
            change()
            torch.testing.assert_close(
                compiled(images_for(reduced)), reduced(images_for(reduced)), atol=1e-5, rtol=1e-5
            )
        reduced.blocks[0].attn.forward = lambda x: x
        with pytest.raises(RuntimeError, match="was set on the instance"):  # the compiler's
            compiled(images_for(reduced))
    torch._dynamo.reset()


def test_an_export_is_of_the_model_as_it_is() -> None:
    reduced = tr.wrap(_model(), GTP)
    _replace(reduced, reduced.blocks)
    with torch.no_grad():
        program = torch.export.export(reduced, (images_for(reduced),), strict=False)
        got = program.module()(images_for(reduced))
        torch.testing.assert_close(got, reduced(images_for(reduced)), atol=1e-5, rtol=1e-5)
