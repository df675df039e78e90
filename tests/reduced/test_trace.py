"""What a wrapped model tells of its tokens: traces, maps, counts, phases."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tokenred as tr
from tests.backbones.forms import FAMILIES, images_for, vit
from tokenred.attention import PLAIN, FusedEngine
from tokenred.core.errors import BackboneError, ConfigError, InputError
from tokenred.reduced.recorder import PHASES, no_span

NAMES = tr.list_strategies()
NOTHING = tr.strategy("gtp", P=0)
PRUNE = tr.Strategy("MixedAttn", schedule=3)
METHODS = {
    "gtp": tr.strategy("gtp", P=2, M=3),
    "prune": PRUNE,
    "evit": tr.strategy("evit", layers=(0, 1), keep_rate=0.6),
    "tome": tr.strategy("tome", r=3),
    "before": tr.Strategy("Random", schedule=3, where="before_block"),
}
pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


@pytest.mark.parametrize("method", METHODS)
def test_owners_and_unreduce(method: str) -> None:
    model = vit(reg_tokens=1)
    reduced, images = tr.wrap(model, METHODS[method]), images_for(model)
    logits, trace = reduced.run_with_trace(images)
    torch.testing.assert_close(logits, reduced(images))
    n, owner = trace.index.shape[1], trace.owners()
    assert trace.tokens_per_layer[-1] == n < 12
    assert owner.shape == (2, 12)
    assert int(owner.max()) == n - 1
    for image, (place, token) in itertools.product(range(2), enumerate(trace.index[0].tolist())):
        if image == 0 and token >= 0 and method != "tome":
            assert owner[0, token] == place
    lost = int((owner < 0).sum())
    assert lost == (2 * (12 - n) if method in ("prune", "before") else 0) or method == "gtp"
    features = trace.features[-1]
    tokens = features[:, 2:]
    gone = {
        (b, int(at)): step.left[b, i]
        for step in trace.steps
        for b in range(2)
        for i, at in enumerate(step.left_index[b])
    }
    for fill in ("last", "nearest", "zero"):
        full = trace.unreduce(tokens, fill)
        assert torch.equal(trace.unreduce(features, fill), full)
        for b, patch in itertools.product(range(2), range(12)):
            if owner[b, patch] >= 0:
                assert torch.equal(full[b, patch], tokens[b, owner[b, patch]])
            elif fill == "zero":
                assert not full[b, patch].any()
            elif fill == "nearest":
                assert any(torch.equal(full[b, patch], token) for token in tokens[b])
            else:
                assert torch.equal(full[b, patch], gone[b, patch])


def test_unreduce_refuses() -> None:
    model = vit()
    _, trace = tr.wrap(model, PRUNE).run_with_trace(images_for(model))
    with pytest.raises(ConfigError, match="fill"):
        trace.unreduce(trace.features[-1], "mean")
    with pytest.raises(InputError, match="expected the 3 final image tokens"):
        trace.unreduce(trace.features[0])
    with pytest.raises(InputError, match="width"):
        trace.unreduce(trace.features[-1][..., :8], "last")
    assert trace.unreduce(trace.features[-1][..., :8], "zero").shape == (2, 12, 8)


def test_forward_train() -> None:
    model = vit().train()
    reduced, images = tr.wrap(model, METHODS["gtp"]), images_for(model)
    logits, aux = reduced.forward_train(images)
    torch.testing.assert_close(logits, reduced(images))
    torch.testing.assert_close(aux["features"], reduced.forward_features(images))
    _, trace = reduced.run_with_trace(images)
    assert torch.equal(aux["index"], trace.index)
    logits.sum().backward()
    assert all(p.grad is not None for p in reduced.parameters())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reg_tokens", [0, 3])
def test_prefix_tokens_stay_where_they_are(method: str, reg_tokens: int) -> None:
    # With blocks that do nothing, only the reduction moves tokens.
    model = vit(reg_tokens=reg_tokens)
    for block in model.blocks:
        for p in (*block.attn.proj.parameters(), *block.mlp.fc2.parameters()):
            p.data.zero_()
    with torch.no_grad():
        start = model._pos_embed(model.patch_embed(images_for(model)))[:, : 1 + reg_tokens]
        _, trace = tr.wrap(model, METHODS[method]).run_with_trace(images_for(model))
    for tokens in trace.features:
        torch.testing.assert_close(tokens[:, : 1 + reg_tokens], start, rtol=0, atol=0)


def test_a_notebook_shows_the_counts_as_a_table() -> None:
    model = vit()
    _, trace = tr.wrap(model, "topk").run_with_trace(images_for(model))
    html = trace._repr_html_()
    assert all(f"<td>{count}</td>" in html for count in trace.tokens_per_layer)
    assert html.count("<td>") == len(trace.tokens_per_layer)


# ---------------------------------------------------------------- attention maps


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_of_a_model_that_keeps_all(family: str) -> None:
    model = FAMILIES[family]().eval()
    reduced, images = tr.wrap(model, NOTHING), images_for(model)
    with torch.no_grad():
        _, mean = reduced.run_with_trace(images, attention=True)
        _, heads = reduced.run_with_trace(images, attention="heads")
    for layer in range(3):
        each = heads.attention(layer)
        torch.testing.assert_close(each.sum(dim=-1), torch.ones(each.shape[:-1]))
        torch.testing.assert_close(mean.attention(layer), each.mean(dim=1))


def test_maps_are_the_model_s_own() -> None:
    model = vit()
    maps: list[Tensor] = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda m, i, o: maps.append(o))
    with torch.no_grad():
        model(images_for(model))
        theirs = list(maps)
        _, trace = tr.wrap(model, NOTHING).run_with_trace(images_for(model), attention="heads")
    for layer, expected in enumerate(theirs):
        torch.testing.assert_close(trace.attention(layer), expected)


@pytest.mark.parametrize("name", NAMES)
def test_maps_of_every_recipe(name: str) -> None:
    model = vit(depth=6, img_size=64)
    reduced = tr.wrap(model, name)
    with torch.no_grad():
        expected = reduced(images_for(model))
        logits, trace = reduced.run_with_trace(images_for(model), attention="mean")
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    for layer in range(6):
        tokens = trace.num_prefix + trace.attention_index[layer].shape[1]
        assert trace.attention(layer).shape == (2, tokens, tokens)
    before = trace.cut(2)
    assert before.attention(-1) is trace.attention(2)
    with pytest.raises(ConfigError, match="blocks 0 to 2"):
        before.attention(3)


def test_maps_that_are_not_there() -> None:
    model: Any = vit()
    reduced = tr.wrap(model, tr.strategy("topk", layers=(2,), keep_rate=0.5))
    _, trace = reduced.run_with_trace(images_for(model))
    assert not trace.attention_maps
    with pytest.raises(ConfigError, match="attention='mean'"):
        trace.attention(0)
    with pytest.raises(ConfigError, match="attention must be one of"):
        reduced.run_with_trace(images_for(model), attention="max")
    model.blocks[0] = nn.Identity()
    _, trace = reduced.run_with_trace(images_for(model), attention="mean")
    with pytest.raises(ConfigError, match="no attention map of block 0"):
        trace.attention(0)
    trace.attention(1)
    model.blocks[1].attn.forward = lambda x, **kwargs: x
    reduced(images_for(model))
    with pytest.raises(BackboneError, match=r"blocks\.1 \(Block\)"):
        reduced.run_with_trace(images_for(model), attention="mean")


def test_how_far_the_share_kept_is_from_theta() -> None:
    model = vit()
    for threshold, bound in (("exact", 1 / 11**2), ("fast", 0.01 + 1 / 11**2)):
        strategy = tr.strategy("gtp", P=1, theta=0.6, threshold=threshold)
        with torch.inference_mode():
            _, trace = tr.wrap(model, strategy).run_with_trace(images_for(model))
        assert [error.shape for error in trace.theta_error] == [(2, 4)] * 3
        assert all(error.abs().max() <= bound for error in trace.theta_error)
        assert len(trace.cut(1).theta_error) == 2
    assert not tr.wrap(model, "gtp").run_with_trace(images_for(model))[1].theta_error


# ---------------------------------------------------------------- counts and phases


def test_alive_counts() -> None:
    model = vit(depth=4)
    reduced, images = tr.wrap(model, "ats"), images_for(model, 3)
    _, trace = reduced.run_with_trace(images)
    counts = reduced.alive_counts(images)
    assert counts[:, 0].tolist() == [12] * 3
    assert torch.equal(counts[:, 1:], torch.stack(trace.alive_per_layer, dim=1))
    cost = reduced.cost(alive=[12, 12, 9, 4, 1])
    c = 32
    blocks = [4 * N * c**2 + 2 * N**2 * c + 8 * n * c**2
              for N, n in ((13, 13), (13, 10), (10, 5), (5, 2))]  # fmt: skip
    assert [layer.macs for layer in cost.layers] == blocks
    assert cost.gmacs == pytest.approx((sum(blocks) + 12 * 3 * 64 * c + c * 5) / 1e9)
    for wrong in ([12, 12, 9, 4], [12, 9, 10, 4, 4]):
        with pytest.raises(InputError, match="expected 5 counts that never increase"):
            reduced.cost(alive=wrong)
    fixed = tr.wrap(vit(depth=4, dynamic_img_size=True), "topk")
    for size in ((32, 24), (48, 24)):
        counts = fixed.alive_counts(torch.randn(2, 3, *size))
        assert counts[0].tolist() == counts[1].tolist()
        assert fixed.cost(size, counts[0].tolist()) == fixed.cost(size)


@pytest.mark.parametrize("recipe", ["gtp", "tome", "evit", "idlevit", "random"])
def test_every_phase_is_named_once_and_the_logits_stay(recipe: str) -> None:
    model = vit()
    reduced, images = tr.wrap(model, recipe), images_for(model)
    seen: list[str] = []
    open_spans = 0

    @contextmanager
    def span(phase: str) -> Iterator[None]:
        nonlocal open_spans
        assert open_spans == 0, "phases do not nest"
        open_spans += 1
        seen.append(phase)
        yield
        open_spans -= 1

    with torch.inference_mode():
        logits = reduced.run_with_spans(images, span)
        torch.testing.assert_close(logits, reduced(images), rtol=0, atol=0)
    assert set(seen) <= set(PHASES)
    assert (seen[0], seen[-1]) == ("embed", "head")
    assert seen.count("mlp") + seen.count("block") == 3
    assert seen.count("graph") == int(recipe == "gtp")
    assert seen.count("select") == seen.count("fuse") > 0


def test_engines_can_be_replaced_for_one_run() -> None:
    used = []

    class Spy(FusedEngine):
        def __call__(self, qkv, spec, state):  # type: ignore[no-untyped-def]
            used.append(spec)
            return PLAIN(qkv, spec, state)

        def supports(self, qkv, spec) -> bool:  # type: ignore[no-untyped-def]
            return True

    model = vit()
    reduced, images = tr.wrap(model, METHODS["gtp"]), images_for(model)
    logits = reduced.run_with_spans(images, no_span, engines=(Spy(),))
    assert len(used) == 3
    torch.testing.assert_close(logits, reduced(images), rtol=1e-5, atol=1e-5)
    assert len(used) == 3
