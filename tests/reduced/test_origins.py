"""Owners noted on the way are those of the full record, in every setting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import tokenred as tr
from tokenred.core.state import Selection, TokenState
from tokenred.reduced.kept import FILLS

pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")

RECIPES = {name: tr.strategy(name) for name in tr.list_strategies()}
METHODS = RECIPES | {
    "prune": tr.Strategy("MixedAttn", schedule=2),
    "sparse": tr.strategy("gtp", P=2, M=3, theta=0.6),
    "before": tr.Strategy("Random", schedule=2, where="before_block"),
    "evit, then more": tr.strategy("evit", layers=(0, 1, 2), keep_rate=0.6),
}


def _model(**options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    tiny = {"img_size": (32, 24), "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 4}
    model = VisionTransformer(**{**tiny, "num_classes": 5, **options}).eval()
    for p in model.parameters():
        p.data += torch.randn_like(p) * (0.3 if p.ndim > 1 else 0.1)
    return model


def _images(batch: int = 3) -> Tensor:
    return torch.randn(batch, 3, 32, 24, generator=torch.Generator().manual_seed(1))


def _unlike_images() -> Tensor:
    """Images of which ATS keeps different numbers of tokens."""
    return _images(8) * torch.logspace(-2, 1, 8)[:, None, None, None]


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_as_the_trace(method: str) -> None:
    reduced = tr.wrap(_model(reg_tokens=1), METHODS[method])
    images = _unlike_images()
    _, trace = reduced.run_with_trace(images)
    for layer in (1, -1):
        cut = trace.cut(layer % 4)
        kept = reduced.kept_tokens(images, layer=layer, norm=False, owners=True)
        assert kept.owner is not None
        assert torch.equal(kept.owner, cut.owners())
        assert torch.equal(kept.index, cut.index)
        assert torch.equal(kept.alive.sum(dim=1), cut.alive_per_layer[-1])
        for fill in FILLS:
            expected = cut.unreduce(cut.features[-1], fill)
            torch.testing.assert_close(kept.unreduce(fill), expected)


class HandMade(tr.Fuser):
    """Describes no transport: the dropped tokens go to the first kept one."""

    def __call__(
        self, state: TokenState, selection: Selection, graph: object, attention: object
    ) -> TokenState:
        p, drop = state.num_prefix, selection.drop[..., None].expand(-1, -1, state.x.shape[2])
        keep = selection.keep[..., None].expand(-1, -1, state.x.shape[2])
        image = state.image.gather(1, keep)
        first = image[:, :1] + state.image.gather(1, drop).sum(dim=1, keepdim=True)
        x = torch.cat((state.x[:, :p], first, image[:, 1:]), dim=1)
        return replace(state, x=x, index=state.index.gather(1, selection.keep), size=None)


def test_a_fuser_that_describes_nothing() -> None:
    strategy = tr.Strategy("DiagAttn", fuser=HandMade(), schedule=2, proportional_attention=False)
    kept = tr.wrap(_model(), strategy).kept_tokens(_images(), owners=True)
    assert kept.owner is not None
    # The lowest kept place has its own patch and all eight that went, of four blocks.
    assert (kept.owner == 0).sum(dim=1).tolist() == [9, 9, 9]


def test_padding_owns_nothing() -> None:
    reduced = tr.wrap(_model(global_pool="avg"), "ats")
    kept = reduced.kept_tokens(_unlike_images(), owners=True)
    assert not bool(kept.alive.all())
    assert bool((kept.index[~kept.alive] == -1).all())
    assert bool((kept.size[~kept.alive] == 0).all())
    assert kept.owner is not None
    owned = torch.nn.functional.one_hot(kept.owner + 1, kept.index.shape[1] + 1)[..., 1:].sum(dim=1)
    assert bool((owned[kept.alive] > 0).all())
    assert not bool(owned[~kept.alive].any())
    last = kept.sorted()
    assert bool((last.alive.long().diff(dim=1) <= 0).all())


def test_of_a_training_form() -> None:
    reduced = tr.wrap(_model(), "dynamicvit").train()
    kept = reduced.kept_tokens(_images(), owners=True)
    assert kept.index.shape == (3, 12)
    assert not bool(kept.alive.all())
    # All tokens are still there, each with its own patch.
    torch.testing.assert_close(kept.unreduce(), kept.tokens)


@pytest.mark.parametrize("method", ["gtp", "prune", "tome", "evit", "idlevit", "dynamicvit"])
def test_gradients_with_and_without_checkpoints(method: str) -> None:
    found = []
    for checkpointed in (False, True):
        reduced = tr.wrap(_model(), METHODS[method]).train()
        reduced.set_grad_checkpointing(checkpointed)
        torch.manual_seed(3)
        maps = reduced.forward_intermediates(_images(), (1, 3), intermediates_only=True)
        sum(m.square().mean() for m in maps).backward()
        grads = {n: p.grad for n, p in reduced.named_parameters() if p.grad is not None}
        assert all(grad.isfinite().all() for grad in grads.values())
        found.append(grads)
    assert "blocks.3.mlp.fc2.weight" in found[0]
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, msg=name)


def test_patch_dropout() -> None:
    reduced = tr.wrap(_model(patch_drop_rate=0.5), tr.strategy("gtp", P=1, M=3)).train()
    kept = reduced.kept_tokens(_images(), norm=False, owners=True)
    full = kept.unreduce()
    # What never entered has no feature, and nobody owns it.
    assert (full.abs().sum(dim=-1) == 0).sum(dim=1).tolist() == [6, 6, 6]
    near = kept.unreduce("nearest")
    assert bool((near.abs().sum(dim=-1) > 0).all())


@torch.no_grad()
def test_one_graph() -> None:
    reduced = tr.wrap(_model(), METHODS["gtp"])
    torch._dynamo.reset()

    def maps(images: Tensor) -> tuple[Tensor, ...]:
        kept = reduced.kept_tokens(images, owners=True)
        (found,) = reduced.forward_intermediates(images, [0], intermediates_only=True)
        return kept.tokens, kept.index, kept.dense("last"), kept.dense("nearest"), found

    compiled = torch.compile(maps, fullgraph=True, backend="eager")
    for one, other in zip(compiled(_images()), maps(_images()), strict=True):
        torch.testing.assert_close(one, other)
