"""The hypothesis strategies reach the corners that they are there for."""

import importlib
import sys

import pytest
import torch
from hypothesis import Phase, find, given, settings

from tokenred.attention import AttentionStat
from tokenred.core.errors import MissingExtraError
from tokenred.testing import Sample, draw


@settings(max_examples=25, deadline=None, derandomize=True)
@given(draw.samples())
def test_a_sample_is_a_legal_state(sample: Sample) -> None:
    state, heads = sample.state, sample.qkv
    b, n = state.index.shape
    assert state.x.shape[:2] == (b, state.num_prefix + n)
    assert heads.q.shape == heads.k.shape == heads.v.shape
    assert heads.q.shape[2] == state.num_prefix + n
    assert heads.q.shape[1] * heads.q.shape[3] == state.x.shape[2]
    assert int(state.index.max()) < state.num_patches
    for row in state.index.tolist():
        patches = [place for place in row if place >= 0]
        assert len(set(patches)) == len(patches)
    attention = sample.attention((AttentionStat.column_sum("mean"), AttentionStat.keys()))
    assert bool(attention[AttentionStat.column_sum("mean")].isfinite().all())
    assert set(attention.values) == {AttentionStat.column_sum("mean"), AttentionStat.keys()}


CORNERS = {
    "one column": lambda s: s.state.grid[1] == 1 and s.state.grid[0] > 1,
    "one patch": lambda s: s.state.num_patches == 1,
    "prefix without CLS": lambda s: s.state.num_prefix > 1 and s.state.cls_index is None,
    "a dead token": lambda s: s.state.size is not None and bool((s.state.size == 0).any()),
    "a token of no patch": lambda s: bool((s.state.index < 0).any()),
    "bfloat16": lambda s: s.state.x.dtype == torch.bfloat16,
    "shuffled": lambda s: bool((s.state.index.diff(dim=1) < 0).any()),
    "a lonely node": lambda s: (
        s.state.graph is not None and bool((s.state.graph.degree() == 0).any())
    ),
}


@pytest.mark.parametrize("corner", CORNERS)
def test_samples_reach(corner: str) -> None:
    quiet = settings(
        max_examples=2000, database=None, derandomize=True, deadline=None, phases=[Phase.generate]
    )
    found = find(draw.samples(), CORNERS[corner], settings=quiet)
    assert CORNERS[corner](found)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(draw.smooth_samples())
def test_permuting_moves_everything_along(sample: Sample) -> None:
    order = sample.some_order()
    moved = sample.permuted(order)
    assert torch.equal(moved.state.index, sample.state.index.gather(1, order))
    for stat in (AttentionStat.diagonal(), AttentionStat.column_sum()):
        here = sample.attention((stat,))[stat].gather(1, order)
        torch.testing.assert_close(moved.attention((stat,))[stat], here)
    if order.shape[1] > 1:
        assert bool((order != torch.arange(order.shape[1])).any(dim=1).all())


def test_without_hypothesis_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("tokenred.testing")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tokenred\[testing\]'"):
        importlib.import_module("tokenred.testing")
