"""What the block loop offers to methods, shown on the smallest parts that use it."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import tokenred as tr
from tests.backbones.forms import images_for, vit
from tokenred.attention import QKV, AttentionStat, AttentionStats, ScoreMod
from tokenred.core.errors import BackboneError, ConfigError
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import gather_tokens
from tokenred.strategies.base import Embedding, Router
from tokenred.strategies.transport import Transport


def _vit(depth: int = 4) -> Any:
    return vit(img_size=32, depth=depth).double()


def _images(b: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(b, 3, 32, 32, generator=generator, dtype=torch.float64)


class FirstTokens(Router):
    """The first half passes blocks 1 and 2, as one stage."""

    together: bool = False

    def active(self, layer: int, depth: int, patches: int) -> int | None:
        return patches // 2 if layer in (1, 2) else None

    def rejoins(self, layer: int, depth: int) -> bool:
        return layer == 2 or self.together

    def split(
        self, state: TokenState, preview: AttentionStats, count: int
    ) -> tuple[TokenState, Mapping[str, Tensor]]:
        x, index = state.x[:, : state.num_prefix + count], state.index[:, :count]
        return replace(state, x=x, index=index), {"rest": state.x[:, state.num_prefix + count :]}

    def join(
        self,
        before: TokenState,
        active: TokenState,
        resting: Mapping[str, Tensor],
        attention: AttentionStats,
    ) -> TokenState:
        return replace(active, x=torch.cat((active.x, resting["rest"]), 1), index=before.index)

    def observe(self, state: TokenState, attention: AttentionStats) -> TokenState:
        seen = state.memory.get("seen", torch.zeros(()))
        return replace(state, memory={**state.memory, "seen": seen + 1})


@pytest.mark.parametrize("together", [False, True])
def test_tokens_may_idle_for_a_stage_of_blocks(together: bool) -> None:
    model, images = _vit(), _images()
    reduced = tr.wrap(model, tr.Strategy("Random", router=FirstTokens(together)))
    x = model._pos_embed(model.patch_embed(images))
    x = model.blocks[0](x)
    for block in model.blocks[1:3]:
        x = torch.cat((block(x[:, :9]), x[:, 9:]), dim=1)
    expected = model.forward_head(model.norm(model.blocks[3](x)))
    torch.testing.assert_close(reduced(images), expected)
    _, trace = reduced.run_with_trace(images)
    assert trace.tokens_per_layer == (16,) * 4
    assert trace.states[-1].memory["seen"] == 2
    # In the middle of a stage the features are those of all tokens.
    middle = reduced.forward_intermediates(images, indices=[1], intermediates_only=True)
    assert middle[0].shape == (3, 32, 4, 4)


def test_a_stage_must_end() -> None:
    class Never(FirstTokens):
        def rejoins(self, layer: int, depth: int) -> bool:
            return False

    with pytest.raises(ConfigError, match="set aside after the last block"):
        tr.wrap(_vit(3), tr.Strategy("Random", router=Never()))


class EveryOther(Router):
    """Every other token passes block 1; in training all do, behind a mask."""

    @property
    def preview(self) -> tuple[AttentionStat, ...]:
        return (AttentionStat.keys(),)

    @property
    def masks(self) -> bool:
        return True

    def active(self, layer: int, depth: int, patches: int) -> int | None:
        return patches // 2 if layer == 1 else None

    def mask(self, state: TokenState, qkv: QKV, count: int) -> tuple[Tensor, TokenState]:
        mask = torch.ones_like(state.x[..., 0])
        mask[:, 2::2] = 0
        return mask, replace(state, memory={"logits": (qkv.q @ qkv.k.mT).mean()})

    def split(
        self, state: TokenState, preview: AttentionStats, count: int
    ) -> tuple[TokenState, Mapping[str, Tensor]]:
        places = torch.tensor([0, *range(1, 17, 2)]).expand(len(state.x), -1)
        x = gather_tokens(state.x, places)
        return replace(state, x=x, index=places[:, 1:] - 1), {"places": places}

    def places(self, resting: Mapping[str, Tensor]) -> Tensor:
        return resting["places"]

    def join(
        self,
        before: TokenState,
        active: TokenState,
        resting: Mapping[str, Tensor],
        attention: AttentionStats,
    ) -> TokenState:
        places = resting["places"][..., None].expand_as(active.x)
        return replace(active, x=before.x.scatter(1, places, active.x), index=before.index)


def test_the_training_form_of_a_route_is_its_inference_form() -> None:
    reduced = tr.wrap(_vit(), tr.Strategy("Random", router=EveryOther()))
    images = _images()
    expected = reduced(images)
    reduced.train()
    logits, aux = reduced.forward_train(images)
    torch.testing.assert_close(logits, expected)
    assert aux["logits"].requires_grad
    logits.sum().backward()
    assert all(p.grad is not None for p in reduced.blocks[1].parameters())


class Uneven(tr.Selector):
    """Image i of the batch keeps 5 + i tokens in block 1."""

    def adaptive(self, layer: int, depth: int) -> bool:
        return layer == 1

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        b, n = state.index.shape
        most = 5 + b - 1
        kept = torch.arange(5, 5 + b)[:, None]
        alive = torch.arange(most) < kept
        gone = torch.arange(n - 5) >= kept - 5
        place = torch.arange(n).expand(b, n)
        return Selection(
            keep=torch.where(alive, place[:, :most], 0), drop=place[:, 5:], alive=alive, gone=gone
        )


@pytest.mark.parametrize("proportional", [False, True])
def test_images_may_keep_different_numbers_of_tokens(proportional: bool) -> None:
    strategy = tr.Strategy(Uneven(), proportional_attention=proportional)
    model, images = _vit(), _images()
    reduced = tr.wrap(model, strategy)
    logits, trace = reduced.run_with_trace(images)
    x = model._pos_embed(model.patch_embed(images))
    for i in range(3):
        alone = model.blocks[0](x[i : i + 1])
        attended = alone + model.blocks[1].attn(model.blocks[1].norm1(alone))
        kept = attended[:, : 1 + 5 + i]
        kept = kept + model.blocks[1].mlp(model.blocks[1].norm2(kept))
        for block in model.blocks[2:]:
            kept = block(kept)
        torch.testing.assert_close(logits[i : i + 1], model.forward_head(model.norm(kept)))
    assert [a.tolist() for a in trace.alive_per_layer] == [[16] * 3] + [[5, 6, 7]] * 3
    assert (trace.owners() >= 0).sum(dim=1).tolist() == [5, 6, 7]
    full = trace.unreduce(trace.features[-1], fill="last")
    assert full.shape == (3, 16, 32)
    assert bool((full.abs().sum(dim=-1) > 0).all())


def test_a_fuser_that_knows_no_padding_is_refused() -> None:
    with pytest.raises(ConfigError, match="fuser='prune'"):
        tr.wrap(_vit(), tr.Strategy(Uneven(), graph="spatial", fuser="propagate"))


class HardMask(tr.Selector):
    """In training a mask for the next blocks, in inference a choice."""

    @property
    def masks(self) -> bool:
        return True

    def mask(self, state: TokenState, attention: AttentionStats, count: int) -> TokenState:
        mask = torch.ones_like(state.x[..., 0])
        mask[:, 1 : 1 + count] = 0
        return replace(state, memory={"mask": mask})

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        place = torch.arange(state.num_tokens).expand(len(state.x), -1)
        return Selection(keep=place[:, count:], drop=place[:, :count])


class Masked(ScoreMod):
    """Its own softmax over what the mask leaves."""

    @property
    def in_training_only(self) -> bool:
        return True

    def __call__(self, logits: Tensor, state: TokenState) -> Tensor:
        return logits

    def normalize(self, logits: Tensor, state: TokenState) -> Tensor | None:
        if "mask" not in state.memory:
            return None
        weight = logits.exp() * state.memory["mask"][:, None, None, :]
        return weight / weight.sum(dim=-1, keepdim=True)


def test_decisions_may_be_masks_in_training() -> None:
    strategy = tr.Strategy(
        HardMask(), schedule=tr.PerLayer((0, 4)), where="before_block", score_mods=(Masked(),)
    )
    reduced = tr.wrap(_vit(), strategy)
    images = _images()
    expected = reduced(images)
    reduced.train()
    logits, aux = reduced.forward_train(images)
    assert aux["features"].shape == (3, 17, 32)
    assert aux["mask"].sum() == 3 * 13
    torch.testing.assert_close(logits, expected)


class Brighter(Embedding):
    """Adds the mean of the image to every token."""

    def __call__(self, images: Tensor, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        assert tokens.shape[1] == grid[0] * grid[1]
        return images.mean(dim=(1, 2, 3))[:, None, None].expand_as(tokens)


def test_an_embedding_adds_to_the_image_tokens() -> None:
    model, images = _vit(), _images()
    reduced = tr.wrap(model, tr.Strategy("Random", embedding=Brighter()))
    x = model._pos_embed(model.patch_embed(images))
    x[:, 1:] += images.mean(dim=(1, 2, 3))[:, None, None]
    expected = model.forward_head(model.norm(model.blocks(x)))
    torch.testing.assert_close(reduced(images), expected)
    assert tr.Strategy("Random").embedding == tr.strategy("gtp").embedding


def test_after_the_mlp_blocks_run_as_they_are() -> None:
    model = vit()
    images, own = images_for(model), model.blocks[1].forward
    model.blocks[1].forward = lambda x: 2 * own(x)
    strategy = tr.Strategy("Random", schedule=tr.PerLayer((0, 3, 0)), where="after_mlp")
    _, trace = tr.wrap(model, strategy).run_with_trace(images)
    expected = 2 * own(trace.features[0])
    places = torch.cat((torch.zeros(2, 1, dtype=torch.long), trace.index_per_layer[1] + 1), dim=1)
    assert places.shape == (2, 10)
    at = places[..., None].expand(-1, -1, 32)
    torch.testing.assert_close(trace.features[1], expected.gather(1, at))
    with pytest.raises(BackboneError, match="forward was set on the instance"):
        tr.wrap(model, strategy.replace(scorer="MixedAttn"))


class OnTheGrid(tr.Scorer):
    """Forgets that tokens have gone, as do the two parts below."""

    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return torch.arange(state.num_patches) + state.image.norm(dim=-1)


class FusesOnTheGrid(tr.Fuser):
    def transport(
        self, state: TokenState, selection: Selection, graph: Any, attention: AttentionStats
    ) -> Transport:
        OnTheGrid()(state, attention)
        return Transport(selection.keep, selection.drop)


class SplitsTheGrid(Router):
    def active(self, layer: int, depth: int, patches: int) -> int | None:
        return patches // 2 if layer == 1 else None

    def split(self, state: TokenState, preview: Any, count: int) -> Any:
        return OnTheGrid()(state, preview)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have no notes")
@pytest.mark.parametrize(
    "fields",
    [
        {"scorer": OnTheGrid()},
        {"scorer": "CosSim", "fuser": FusesOnTheGrid()},
        {"scorer": "CosSim", "router": SplitsTheGrid(), "schedule": tr.PerLayer((2,))},
    ],
)
def test_where_an_own_part_fails_is_noted(fields: dict[str, Any]) -> None:
    model = tr.wrap(vit(), tr.Strategy(**{"schedule": 2, **fields}))
    with pytest.raises(RuntimeError, match="must match the size") as caught:
        model(images_for(model))
    part = next(each for each in fields.values() if "Grid" in repr(each))
    told = f"In {part!r}, block 1: 10 of 12 image tokens are left; state.index says which."
    assert caught.value.__notes__ == [told]
