"""Tri-Level's mask: entry by entry, ties, prefixes, the blocks it is in."""

import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import tokenred as tr
from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.errors import ConfigError
from tokenred.core.state import Selection, TokenState
from tokenred.strategies.score_mods import TopKeys
from tokenred.testing import Sample, draw
from tokenred.testing.sample import model_info

QUICK = settings(max_examples=15, deadline=None, derandomize=True)


MAP = AttentionStat.map("mean")


def state_of(n: int, p: int = 1, size: Tensor | None = None) -> TokenState:
    b = 1 if size is None else len(size)
    return TokenState(torch.zeros(b, p + n, 1), torch.arange(n).expand(b, n), p, (1, n), size=size)


@QUICK
@given(draw.smooth_samples(), st.sampled_from((0.1, 0.3, 0.1 + 0.2, 0.55, 0.999)))
def test_every_entry_by_hand(sample: Sample, ratio: float) -> None:
    qkv, p = sample.qkv, sample.state.num_prefix
    logits = qkv.q @ qkv.k.transpose(-2, -1) * qkv.scale
    mean, mod = logits.softmax(dim=-1).mean(dim=1), TopKeys(ratio)
    state = replace(sample.state, size=None)
    held = mod.follow(state, AttentionStats({MAP: mean}), None)
    edited = mod(logits, held)
    assert mod(logits, state) is logits  # before the first mask
    assert torch.equal(edited[:, :, :p], logits[:, :, :p])
    n = state.num_tokens
    count = math.ceil(Fraction(str(ratio)) * n)
    for image in range(len(logits)):
        for row in range(p, p + n):
            best = sorted(range(p, p + n), key=lambda j: (-mean[image, row, j].item(), j))
            on = torch.tensor(sorted({*range(p), *best[:count]}))
            expected = torch.full_like(logits[image, :, row], -torch.inf)
            expected[:, on] = logits[image, :, row, on]
            assert torch.equal(edited[image, :, row], expected)


def test_equal_keys_go_from_the_end_and_padding_is_not_counted() -> None:
    size = torch.ones(2, 6)
    size[1, 4:] = 0  # three tokens of five: ⌈0.6·3⌉ = 2, ⌈0.6·5⌉ = 3
    seen = AttentionStats({MAP: torch.zeros(2, 6, 6)})
    held = TopKeys(0.6).follow(state_of(5, size=size), seen, None).memory["top_keys"]
    assert held[0].long().tolist() == [[1, 1, 1, 0, 0]] * 5
    assert held[1].long().tolist() == [[1, 1, 0, 0, 0]] * 5


@pytest.mark.parametrize(
    ("depth", "first", "mod"),
    [
        (12, 4, TopKeys()),
        (16, 5, TopKeys()),
        (1, 1, TopKeys()),
        (12, 8, TopKeys(0.3, 7)),
        (12, 3, TopKeys(0.3, (2, 5))),
        (12, 0, TopKeys(1.0, 7, epsilon=1e-6)),
    ],
)
def test_the_blocks_after_the_first_reduction(depth: int, first: int, mod: TopKeys) -> None:
    blocks = [layer for layer in range(depth) if mod.active(layer, depth)]
    assert blocks == list(range(first, depth))
    assert not any(TopKeys(1.0).active(layer, depth) for layer in range(depth))


def test_found_by_name_and_refusals() -> None:
    assert tr.Strategy("Random", score_mods=("topkeys",)).score_mods == (TopKeys(),)
    with pytest.raises(ConfigError, match=r"got blocks \[12\]"):
        TopKeys(after=(3, 12)).check(model_info(8, (2, 2)))
    model = VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=4, num_heads=2)
    for router in ("idle", "slow_fast"):
        with pytest.raises(ConfigError, match="sets some of them aside in block"):
            tr.wrap(model, tr.Strategy("Random", router=router, score_mods=("TopKeys",)))


# ---------------------------------------------------------------- held from block to block


def follow(mod: TopKeys, state: TokenState, seen: Tensor | None, keep: Tensor | None) -> Tensor:
    drop = torch.zeros(1, 0, dtype=torch.long)
    selection = None if keep is None else Selection(keep, drop)
    n = state.num_tokens if keep is None else keep.shape[1]
    state = replace(state, x=state.x[:, : state.num_prefix + n])
    attention = AttentionStats({} if seen is None else {MAP: seen})
    return mod.follow(state, attention, selection).memory["top_keys"]


def test_made_among_those_that_stay_and_gathered_with_them() -> None:
    generator = torch.Generator().manual_seed(3)
    seen = torch.rand(1, 7, 7, generator=generator)
    state = state_of(6)
    keep = torch.tensor([[0, 2, 3, 5]])
    held = follow(TopKeys(0.5), state, seen, keep)
    among = seen[0, 1:, 1:][keep[0]][:, keep[0]]
    best = among.topk(2, dim=-1).indices
    assert torch.equal(held, torch.zeros(1, 4, 4, dtype=torch.bool).scatter(-1, best[None], True))
    # Two of them stay in a later block, which makes no mask.
    later = replace(state, x=torch.zeros(1, 5, 1), memory={"top_keys": held})
    less = follow(TopKeys(0.5), later, None, torch.tensor([[1, 3]]))
    assert torch.equal(less, held[:, [1, 3]][:, :, [1, 3]])
    # A token that a fuser adds sees all and is seen by all.
    fused = TopKeys(0.5).follow(
        later, AttentionStats(), Selection(torch.tensor([[1, 3, 0]]), torch.tensor([[2]]))
    )
    assert fused.memory["top_keys"].shape == (1, 4, 4)
    assert fused.memory["top_keys"][0, 3].all()
    assert fused.memory["top_keys"][0, :, 3].all()


def test_a_row_with_few_entries_left_opens_entirely_as_released() -> None:
    seen = torch.zeros(1, 5, 5)
    seen[0, 1:, 1:] = torch.tensor([[4.0, 3, 2, 1], [4, 0, 0, 0], [0, 0, 3, 0], [1, 2, 2, 2]])
    state = state_of(4)
    ours = follow(TopKeys(0.5), state, seen, None)
    assert ours[0].long().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0]]
    theirs = follow(TopKeys(0.5, reference=True), state, seen, None)
    assert theirs[0].long().tolist() == [[1, 1, 0, 0], [1] * 4, [1] * 4, [0, 1, 1, 1]]
