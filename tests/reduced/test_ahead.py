"""Reductions that are judged by a block's own attention before it is applied."""

import copy
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import tokenred as tr
from tests.strategies.recipes.checks import images, model
from tokenred.strategies.fusers import Maximum, Merge, Propagate, Prune

STRATEGY = tr.strategy("mctf", r=4, layers=(1, 2))


# The map of 65 tokens is larger than the hidden layer of a width of 8, and so is computed twice.
LARGE = VisionTransformer(
    img_size=16, patch_size=2, embed_dim=8, num_heads=4, depth=4, num_classes=5
).double()


def run(strategy: tr.Strategy, base: nn.Module | None = None) -> torch.Tensor:
    base = model("cls") if base is None else base
    batch = images("cls") if base is not LARGE else torch.ones(2, 3, 16, 16).double().cumsum(-1)
    with torch.no_grad():
        logits: torch.Tensor = tr.wrap(base.eval(), strategy)(batch)
    return logits


@pytest.mark.parametrize("base", [None, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("fuser", [Merge(), Prune(), Propagate(0.2)])
def test_spreading_the_values_is_merging_the_map(fuser: Any, base: Any) -> None:
    class Held(type(fuser)):  # type: ignore[misc]
        """The same, but the map is held, merged and applied."""

        linear = False

        def __call__(self, state: Any, selection: Any, graph: Any, attention: Any) -> Any:
            return self.transport(state, selection, graph, attention).apply(state)

    strategy = STRATEGY.replace(fuser=fuser, graph="mixed" if fuser.uses_graph else "none")
    held = strategy.replace(fuser=Held(**{k: getattr(fuser, k) for k in fuser.__match_args__}))
    torch.testing.assert_close(run(held, base), run(strategy, base), rtol=0, atol=1e-12)


def test_a_listener_sees_queries_keys_and_values_whole() -> None:
    base, widths = copy.deepcopy(model("cls")), []
    base.blocks[1].attn.qkv.register_forward_hook(lambda m, x, y: widths.append(y.shape[-1]))
    torch.testing.assert_close(run(STRATEGY, base), run(STRATEGY), rtol=0, atol=1e-12)
    assert set(widths) == {3 * base.embed_dim}


def test_a_single_block_by_hand() -> None:
    strategy = tr.Strategy(
        "CosSim", fuser="prune", schedule=tr.PerLayer((0, 0, 0, 5)), where="inside_attention"
    )
    base, batch = model("cls"), images("cls")
    block = base.blocks[3]
    with torch.no_grad():
        _, trace = tr.wrap(base, strategy).run_with_trace(batch)
        x = trace.features[2]
        b, n, c = x.shape
        q, k, v = block.attn.qkv(block.norm1(x)).view(b, n, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) * block.attn.scale).softmax(dim=-1)
        keep = torch.cat((torch.zeros_like(trace.index[:, :1]), trace.index + 1), dim=1)
        for image in range(b):
            rows = attention[image][:, keep[image]][:, :, keep[image]]
            out = (rows @ v[image][:, keep[image]]).transpose(0, 1).reshape(len(keep[image]), c)
            y = x[image, keep[image]] + block.attn.proj(out)
            y = y + block.mlp(block.norm2(y))
            torch.testing.assert_close(trace.features[3][image], y)


def test_the_largest_entries_hold_the_map() -> None:
    assert not Maximum.linear
    assert run(tr.strategy("mctf", r=4, layers=(1, 2), pooling="max")).isfinite().all()


def test_a_fuser_without_a_transport_is_refused() -> None:
    class Own(tr.Fuser):
        def __call__(self, state: Any, selection: Any, graph: Any, attention: Any) -> Any:
            return state.take(selection.keep)

    with pytest.raises(tr.errors.ConfigError, match="does not describe its transport"):
        tr.wrap(model("cls"), STRATEGY.replace(fuser=Own()))


@pytest.mark.parametrize("where", ["before_attention", "inside_attention"])
def test_attention_maps_are_of_the_tokens_that_entered(where: str) -> None:
    reduced = tr.wrap(model("cls"), STRATEGY.replace(where=where))
    with torch.no_grad():
        _, trace = reduced.run_with_trace(images("cls"), attention="mean")
    assert trace.attention(1).shape == (3, 17, 17)
    assert trace.attention_index[1].shape == (3, 16)
