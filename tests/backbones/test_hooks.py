"""Hooks and patched forwards on modules that the block loop opens."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models._features import FeatureHookNet
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn

import tokenred as tr
from tests.backbones.checks import NOTHING, OPENED, same
from tests.backbones.forms import FAMILIES, TINY, answer, blocks_of, images_for, lively
from tokenred.core.errors import BackboneError

TIMM = [name for name in FAMILIES if not name.startswith("hf")]
GTP = tr.strategy("gtp", P=2, M=3)
ELSEWHERE = tr.strategy("topk", layers=(2,), keep_rate=0.5)
pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


def _model(family: str = "vit") -> Any:
    return lively(FAMILIES[family]()).eval()


def _listen(model: Any, which: str) -> list[tuple[str, tuple[int, ...]]]:
    """Note who was called, in which order, with which shapes; each hook changes something."""
    heard: list[tuple[str, tuple[int, ...]]] = []

    def before(module: nn.Module, args: Any) -> Any:
        heard.append(("before", tuple(args[0].shape)))
        return (args[0] * 1.25, *args[1:])

    def after(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:
        heard.append((type(module).__name__, tuple(output.shape)))
        return output * 0.5 + args[0]

    def back(module: nn.Module, grads: Any, given: Any) -> Any:
        heard.append(("back", tuple(given[0].shape)))
        return tuple(None if g is None else g * 0.5 for g in grads)

    modules = list(blocks_of(model))
    if which == "attention":
        modules = [m for m in model.modules() if hasattr(m, "attn_drop")]
    for module in modules:
        module.register_forward_pre_hook(before)
        module.register_forward_hook(after, with_kwargs=True)
        module.register_full_backward_hook(back)
        module.register_full_backward_pre_hook(lambda m, given: heard.append(("pre", ())))
    return heard


@pytest.mark.parametrize("which", ["block", "attention"])
@pytest.mark.parametrize("family", FAMILIES)
def test_hooks_run_as_in_the_model(family: str, which: str) -> None:
    model = _model(family).double()
    if which == "attention" and (family not in TIMM or family == "parallel"):
        pytest.skip("has no attention of its own, or one that gives more than a tensor")
    images = images_for(model).requires_grad_()
    plain = answer(model(images))
    heard = _listen(model, which)
    results = []
    for run in (model, tr.wrap(model, OPENED)):
        heard.clear()
        logits = answer(run(images))
        (gradient,) = torch.autograd.grad(logits.square().sum(), images)
        results.append((logits.detach(), gradient, list(heard)))
    (expected, slope, told), (got, our_slope, we_told) = results
    assert not torch.allclose(expected, plain.detach())
    same(got, expected, 1e-10)
    same(our_slope, slope, 1e-10)
    # Branches side by side run one after the other in timm, and together here.
    assert (sorted(we_told) == sorted(told)) if family == "branches" else (we_told == told)
    assert told


@pytest.mark.parametrize("name", tr.list_strategies())
def test_hooks_see_what_each_recipe_does(name: str) -> None:
    model = VisionTransformer(**TINY | {"depth": 4, "img_size": 64}).eval()
    reduced, images = tr.wrap(model, name), images_for(model)
    with torch.no_grad():
        before = reduced(images)
        seen: dict[int, list[Any]] = {at: [] for at in range(4)}
        for at, block in enumerate(model.blocks):
            for module in (block, block.attn):
                module.register_forward_hook(lambda m, i, o, at=at: seen[at].append((i[0], o)))
        after, trace = reduced.run_with_trace(images)
    torch.testing.assert_close(after, before)
    for at, calls in seen.items():
        assert len(calls) == 2, f"block {at}: {len(calls)} calls"
        (attention_in, attention_out), (block_in, block_out) = calls
        assert attention_in.shape == attention_out.shape
        if reduced.strategy.where != "inside_attention":  # the attention is that of what remains
            assert attention_in.shape == block_in.shape
        if block_out.shape == trace.features[at].shape:
            assert bool((block_out == trace.features[at]).all())


@pytest.mark.parametrize("family", TIMM)
def test_the_map_reaches_its_dropout(family: str) -> None:
    model = _model(family).double()
    maps: list[Tensor] = []

    def knock_out(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        maps.append(output)
        return output * (output < output.amax(dim=-1, keepdim=True))

    attentions = [m for m in model.modules() if hasattr(m, "attn_drop")]
    for module in attentions:
        module.fused_attn = False
        module.attn_drop.register_forward_hook(knock_out)
    with torch.no_grad():
        expected = answer(model(images_for(model)))
        theirs = list(maps)
        maps.clear()
        got = answer(tr.wrap(model, OPENED)(images_for(model)))
    same(got, expected, 1e-10)
    assert len(maps) == len(theirs) == len(attentions)
    for ours, its in zip(maps, theirs, strict=True):
        torch.testing.assert_close(ours, its)


def test_hooks_that_cannot_run_are_refused() -> None:
    model = _model("hf deit")
    reduced = tr.wrap(model, GTP)
    block: Any = blocks_of(model)[1]
    handle = block.attention.register_forward_hook(lambda m, i, o: None)
    with pytest.raises(BackboneError, match=r"deit.*\.1 \(DeiT.*hooks on its .*run_with_trace"):
        reduced(images_for(model))
    # Where nothing is done inside a block it runs as it is.
    tr.wrap(model, NOTHING)(images_for(model))
    handle.remove()
    reduced(images_for(model))


@pytest.mark.parametrize("at", ["input", "output"])
def test_a_hook_must_not_change_the_tokens(at: str) -> None:
    model = _model()
    reduced = tr.wrap(model, GTP)
    if at == "input":
        model.blocks[1].register_forward_pre_hook(lambda m, i: (i[0][:, :-1],))
    else:
        model.blocks[1].register_forward_hook(lambda m, i, o: (o, None))
    with pytest.raises(BackboneError, match=f"hook on Block changed its {at} to .*expected one"):
        reduced(images_for(model))


def test_timm_collects_features_by_hooks() -> None:
    model = _model()
    reduced = tr.wrap(model, GTP)
    _, trace = reduced.run_with_trace(images_for(model))
    got = FeatureHookNet(reduced, out_indices=(0, 2))(images_for(model))
    for ours, at in zip(got, (0, 2), strict=True):
        torch.testing.assert_close(ours, trace.features[at])


def test_hooks_of_the_base() -> None:
    model = _model()
    reduced = tr.wrap(model, GTP)
    before = reduced(images_for(model))
    handle = model.register_forward_hook(lambda m, i, o: o * 2)
    torch.testing.assert_close(reduced(images_for(model)), before * 2)
    handle.remove()
    torch.testing.assert_close(reduced(images_for(model)), before)


@pytest.mark.slow
def test_compile_runs_hooks() -> None:
    model = _model()
    reduced = tr.wrap(model, GTP)
    model.blocks[0].register_forward_hook(lambda m, i, o: o * 0.5)
    torch._dynamo.reset()
    compiled: Any = torch.compile(reduced, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images_for(model)), reduced(images_for(model)))
    torch._dynamo.reset()


# ---------------------------------------------------------------- patched


class OwnForward(Block):
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return super().forward(x, *args, **kwargs) * 2


class OwnCall(Block):
    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().__call__(*args, **kwargs) * 2


class OwnAttention(Attention):
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return super().forward(x, *args, **kwargs) * 2


def _swap(module: Any, kind: type) -> None:
    module.__class__ = kind


def _twice(module: Any) -> None:
    plain = module.forward
    module.forward = lambda *args, **kwargs: 2 * plain(*args, **kwargs)


PATCHES: dict[str, Callable[[Any], None]] = {
    "block": lambda block: _twice(block),
    "attention": lambda block: _twice(block.attn),
    "subclass": lambda block: _swap(block, OwnForward),
    "call": lambda block: _swap(block, OwnCall),
    "attention subclass": lambda block: _swap(block.attn, OwnAttention),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("patch", PATCHES)
def test_a_patched_block_runs_whole_or_is_refused(patch: str, when: str) -> None:
    model = _model()
    images, expected = images_for(model), copy.deepcopy(model)
    plain = tr.wrap(model, ELSEWHERE)(images)
    if when == "after":
        reduced, inside = tr.wrap(model, ELSEWHERE), tr.wrap(model, GTP)
    PATCHES[patch](model.blocks[1])
    if when == "before":
        reduced = tr.wrap(model, ELSEWHERE)
    with pytest.raises(BackboneError, match=r"blocks\.1 \(") as caught:
        tr.wrap(model, GTP) if when == "before" else inside(images)
    assert len(str(caught.value)) < 400
    moved = reduced(images)
    assert not torch.allclose(moved, plain)
    if patch.startswith("attention"):
        # The same numbers by other means: what the patches double is doubled in the weights.
        expected.blocks[1].attn.proj.weight.data *= 2
        expected.blocks[1].attn.proj.bias.data *= 2
        torch.testing.assert_close(moved, tr.wrap(expected, ELSEWHERE)(images))


def test_a_class_changed_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    reduced, dense = tr.wrap(model, GTP), tr.wrap(model, NOTHING)
    whole = dense(images_for(model))

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return x * 0

    monkeypatch.setattr(Attention, "forward", forward)
    with pytest.raises(BackboneError, match=r"Attention\.forward was replaced by one of tests"):
        reduced(images_for(model))
    assert not torch.allclose(dense(images_for(model)), whole)
    monkeypatch.undo()
    reduced(images_for(model))


@pytest.mark.parametrize("name", ["forward", "forward_features"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_patched_model_is_refused(family: str, name: str) -> None:
    model = _model(family)
    if not hasattr(model, name):
        pytest.skip("has no such method")
    reduced, plain = tr.wrap(model, GTP), getattr(model, name)
    setattr(model, name, lambda *args, **kwargs: plain(*args, **kwargs))
    for run in (lambda: reduced(images_for(model)), lambda: tr.wrap(model, GTP)):
        with pytest.raises(BackboneError, match=f"{name} of this .* set on the instance.*del "):
            run()
    delattr(model, name)
    reduced(images_for(model))


@pytest.mark.parametrize("name", ["forward_head", "_pos_embed", "pool"])
@pytest.mark.parametrize("through", ["base", "reduced"])
def test_patched_methods_that_are_called(name: str, through: str) -> None:
    model = _model()
    reduced = tr.wrap(model, GTP)
    before, plain = reduced(images_for(model)), getattr(model, name)
    target = model if through == "base" else reduced
    setattr(target, name, lambda *args, **kwargs: plain(*args, **kwargs) * 2)
    assert not torch.allclose(reduced(images_for(model)), before)
