"""Tri-Level's mask: entry by entry, ties, prefixes, the blocks it is in."""

from __future__ import annotations

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


def state_of(logits: Tensor, p: int, size: Tensor | None = None) -> TokenState:
    b, _, n, _ = logits.shape
    index = torch.arange(n - p).expand(b, n - p)
    return TokenState(torch.zeros(b, n, 1), index, p, (1, n - p), size=size)


@QUICK
@given(draw.smooth_samples(), st.sampled_from((0.1, 0.3, 0.5, 0.9, 0.999)))
def test_every_entry_by_hand(sample: Sample, ratio: float) -> None:
    heads, p = sample.qkv, sample.state.num_prefix
    logits = heads.q @ heads.k.transpose(-2, -1) * heads.scale
    before = logits.clone()
    edited = TopKeys(ratio)(logits, state_of(logits, p))
    assert torch.equal(logits, before)
    mean = logits.softmax(dim=-1).mean(dim=1)
    b, h, n, _ = logits.shape
    count = math.ceil(round(ratio * (n - p), 9))
    for image in range(b):
        for row in range(n):
            on = set(range(n))
            if row >= p:
                best = sorted(range(p, n), key=lambda j: (-mean[image, row, j].item(), j))
                on = {*range(p), *best[:count]}
            for head in range(h):
                found = edited[image, head, row]
                assert {j for j in range(n) if found[j] > -torch.inf} == on
                places = torch.tensor(sorted(on))
                assert torch.equal(found[places], logits[image, head, row, places])
    torch.testing.assert_close(edited.softmax(dim=-1).sum(dim=-1), torch.ones(b, h, n).double())


def test_equal_keys_go_from_the_end_and_padding_is_not_counted() -> None:
    logits = torch.zeros(2, 2, 6, 6)
    edited = TopKeys(0.4)(logits, state_of(logits, 1))
    assert (edited[0, 0, 1:] == 0).nonzero()[:3, 1].tolist() == [0, 1, 2]
    size = torch.ones(2, 6)
    size[1, 4:] = 0  # three tokens of five: ⌈0.4·3⌉ = 2, ⌈0.4·5⌉ = 2; ⌈0.6·3⌉ = 2, ⌈0.6·5⌉ = 3
    biased = logits + size.log()[:, None, None, :]
    edited = TopKeys(0.6)(biased, state_of(logits, 1, size))
    assert (edited == 0).sum(dim=-1)[:, 0, 1:].tolist() == [[4] * 5, [3] * 5]
    assert (edited == 0).sum(dim=-1)[:, 0, 0].tolist() == [6, 4]


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


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 5, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    mod, state = TopKeys(0.5), state_of(logits, 1)

    def attention(values: Tensor) -> Tensor:
        return mod(values, state).softmax(dim=-1)

    assert torch.autograd.gradcheck(attention, (logits,))


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
    attention = AttentionStats({} if seen is None else {AttentionStat.map("mean"): seen})
    return mod.follow(state, attention, selection).memory["top_keys"]


def test_made_among_those_that_stay_and_gathered_with_them() -> None:
    generator = torch.Generator().manual_seed(3)
    seen = torch.rand(1, 7, 7, generator=generator)
    state = state_of(torch.zeros(1, 1, 7, 7), 1)
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
    state = state_of(torch.zeros(1, 1, 5, 5), 1)
    ours = follow(TopKeys(0.5), state, seen, None)
    assert ours[0].long().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0]]
    theirs = follow(TopKeys(0.5, reference=True), state, seen, None)
    assert theirs[0].long().tolist() == [[1, 1, 0, 0], [1] * 4, [1] * 4, [0, 1, 1, 1]]


@pytest.mark.parametrize("ratio", [0.1 + 0.2, 0.55])
def test_shares_are_taken_exactly_with_sizes_and_without(ratio: float) -> None:
    n = 500
    logits = torch.randn(1, 1, n + 1, n + 1, generator=torch.Generator().manual_seed(1))
    wanted = math.ceil(Fraction(str(ratio)) * n)
    for size in (None, torch.ones(1, n + 1)):
        edited = TopKeys(ratio, after=0)(logits, state_of(logits, 1, size))
        on = edited[0, 0, 1:, 1:].isfinite().sum(dim=-1).unique()
        assert on.tolist() == [wanted]
