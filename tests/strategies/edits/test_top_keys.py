"""Tri-Level's mask: entry by entry, ties, prefixes, the blocks it is in."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tokenred as tr
from tokenred.core.errors import ConfigError
from tokenred.core.state import TokenState
from tokenred.strategies.edits import TopKeys
from tokenred.testing import Sample, draw
from tokenred.testing.sample import model_info

QUICK = settings(max_examples=40, deadline=None, derandomize=True)


def state_of(logits: Tensor, p: int, size: Tensor | None = None) -> TokenState:
    b, _, n, _ = logits.shape
    index = torch.arange(n - p).expand(b, n - p)
    return TokenState(torch.zeros(b, n, 1), index, p, (1, n - p), size=size)


@QUICK
@given(draw.smooth_samples(), st.sampled_from((0.1, 0.3, 0.5, 0.9, 0.999)))
def test_every_entry_by_hand(sample: Sample, ratio: float) -> None:
    heads, p = sample.heads, sample.state.num_prefix
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
    ("depth", "first", "edit"),
    [(12, 4, TopKeys()), (16, 5, TopKeys()), (1, 1, TopKeys()), (12, 8, TopKeys(0.3, 7))],
)
def test_the_blocks_after_the_first_reduction(depth: int, first: int, edit: TopKeys) -> None:
    blocks = [layer for layer in range(depth) if edit.active(layer, depth)]
    assert blocks == list(range(first, depth))
    assert not any(TopKeys(1.0).active(layer, depth) for layer in range(depth))


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 5, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    edit, state = TopKeys(0.5), state_of(logits, 1)

    def attention(values: Tensor) -> Tensor:
        return edit(values, state).softmax(dim=-1)

    assert torch.autograd.gradcheck(attention, (logits,))


def test_found_by_name_and_refusals() -> None:
    assert tr.Strategy("Random", edits=("topkeys",)).edits == (TopKeys(),)
    with pytest.raises(ConfigError, match="ratio must be a finite number"):
        TopKeys(0)
    with pytest.raises(ConfigError, match="after must be a whole number"):
        TopKeys(after=-1)
    with pytest.raises(ConfigError, match="block 12 is named"):
        TopKeys(after=12).check(model_info(8, (2, 2)))
