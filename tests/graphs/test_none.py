"""No graph: nothing is built, and propagating over it is pruning."""

from __future__ import annotations

import torch
from hypothesis import given, settings

from tokenred.graphs import NoGraph
from tokenred.graphs.base import graph_builders
from tokenred.strategies import Propagate, Prune
from tokenred.testing import Sample, draw

QUICK = settings(max_examples=25, deadline=None, derandomize=True)


def test_it_builds_nothing() -> None:
    assert NoGraph()(torch.full((2, 4, 3), torch.nan), (2, 2)) is None
    assert graph_builders.create("NONE") == NoGraph()


@QUICK
@given(draw.reductions(draw.samples()))
def test_propagating_over_it_is_pruning(case: Sample) -> None:
    state, attention = case.state, case.attention(())
    propagated = Propagate(alpha=0.7)(state, case.selection, None, attention)
    pruned = Prune()(state, case.selection, None, attention)
    assert torch.equal(propagated.x, pruned.x)
    assert torch.equal(propagated.index, pruned.index)
