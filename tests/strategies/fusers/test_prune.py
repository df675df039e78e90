"""Pruning: what stays is untouched, what goes is gone."""

from __future__ import annotations

import torch
from hypothesis import given, settings

from tokenred.attention import AttentionStats
from tokenred.strategies import Prune
from tokenred.testing import Sample, draw

QUICK = settings(max_examples=20, deadline=None, derandomize=True)


@QUICK
@given(draw.reductions(draw.samples()))
def test_what_it_keeps_it_keeps_bit_for_bit(case: Sample) -> None:
    state, selection = case.state, case.selection
    after = Prune()(state, selection, state.graph, AttentionStats())
    p = state.num_prefix
    image = torch.arange(state.x.shape[0])[:, None]
    assert torch.equal(after.prefix, state.prefix)
    assert torch.equal(after.image, state.image[image, selection.keep])
    assert torch.equal(after.index, state.index[image, selection.keep])
    if state.size is None:
        assert after.size is None
    else:
        assert torch.equal(after.size[:, :p], state.size[:, :p])
        assert torch.equal(after.size[:, p:], state.size[image, selection.keep + p])
