"""Rows of a rotary table by position."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tokenred.backbones.eva import Rotary
from tokenred.core.state import TokenState


@pytest.mark.parametrize("shape", [(12, 16), (3, 2, 12, 16)], ids=["one", "each block and head"])
def test_rotary_of_places(shape: tuple[int, ...]) -> None:
    rope = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    index = torch.arange(12).expand(2, 12)
    rotary = Rotary.of(rope, index)
    at = torch.tensor([[4, 0, -1], [11, -1, 2]])
    layer = 1
    own = rope if rope.ndim == 2 else rope[layer]
    state = TokenState(torch.zeros(2, 12, 1), index, 0, (3, 4), layer=layer)
    assert torch.equal(rotary.at(state), own)
    moved = rotary.at(replace(state, index=at))
    heads = 1 if rope.ndim == 2 else 2
    assert moved.shape == (2, heads, 3, 16)
    still = torch.cat((torch.zeros(8), torch.ones(8)))
    for b in range(2):
        for i, place in enumerate(at[b].tolist()):
            expected = own[..., place, :] if place >= 0 else still
            assert torch.equal(moved[b, :, i], expected.expand(heads, 16))
