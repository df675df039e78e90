"""Propagation against Eq. 10 and 12, computed densely in NumPy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.attention import AttentionStats
from tokenred.core.errors import ConfigError
from tokenred.core.state import Selection, TokenState
from tokenred.graphs import Graph, Spatial
from tokenred.strategies import Propagate
from tokenred.testing import Sample, draw
from tokenred.testing.sample import model_info

QUICK = settings(max_examples=20, deadline=None, derandomize=True)
ALPHAS = st.sampled_from((0.0, 0.1, 0.5, 1.0, 3.0))


@QUICK
@given(draw.reductions(draw.smooth_samples()), ALPHAS)
def test_it_is_equations_10_and_12(case: Sample, alpha: float) -> None:
    state, selection = case.state, case.selection
    after = Propagate(alpha=alpha)(state, selection, state.graph, AttentionStats())
    b, n = state.index.shape
    p = state.num_prefix
    # Â between living tokens; −1 is on no graph.
    weights = np.zeros((b, n, n))
    if state.graph is not None:
        dense = state.graph.dense().expand(b, -1, -1).numpy()
        for image, i, j in np.ndindex(b, n, n):
            at, to = state.index[image, i].item(), state.index[image, j].item()
            weights[image, i, j] = dense[image, at, to] if at >= 0 and to >= 0 else 0
    for image in range(b):
        keep, drop = selection.keep[image].numpy(), selection.drop[image].numpy()
        moving = alpha * weights[image][np.ix_(keep, drop)]
        x = state.image[image].numpy()
        np.testing.assert_allclose(
            after.image[image].numpy(), x[keep] + moving @ x[drop], atol=1e-12
        )
        if state.size is not None:
            s = state.size[image, p:].numpy()
            np.testing.assert_allclose(
                after.size[image, p:].numpy(), s[keep] + moving @ s[drop], atol=1e-12
            )


def line(weight_of: float = 1.0) -> tuple[TokenState, Graph]:
    """Three patches in a row, with features 1, 10, 100."""
    x = torch.tensor([[[1.0], [10.0], [100.0]]]) * weight_of
    state = TokenState(x, torch.arange(3)[None], 0, (1, 3), size=torch.ones(1, 3))
    return state, Spatial()(x, (1, 3))


def test_a_token_without_a_kept_neighbour_is_lost() -> None:
    state, graph = line()
    # 0 and 1 go; 2 is a neighbour of 1 only, by a weight of 1/√(2·1).
    selection = Selection(torch.tensor([[2]]), torch.tensor([[0, 1]]))
    after = Propagate(alpha=0.5)(state, selection, graph, AttentionStats())
    weight = 0.5 / math.sqrt(2)
    assert after.x.item() == pytest.approx(100 + weight * 10)
    assert after.size.item() == pytest.approx(1 + weight)


def test_alpha_may_differ_between_blocks() -> None:
    state, graph = line()
    selection = Selection(torch.tensor([[0, 2]]), torch.tensor([[1]]))
    fuser = Propagate(alpha=(0.0, 0.2, 0.4))
    moved = [
        fuser(replace(state, layer=layer), selection, graph, AttentionStats()).x[0, 0, 0].item()
        for layer in range(3)
    ]
    weight = 10 / math.sqrt(2)
    assert moved == pytest.approx([1, 1 + 0.2 * weight, 1 + 0.4 * weight])


def test_as_many_alphas_as_blocks() -> None:
    info = model_info(8, (2, 2))
    Propagate(alpha=(0.1,) * info.depth).check(info)
    with pytest.raises(ConfigError, match=f"alpha has 3 values, .* has {info.depth} blocks"):
        Propagate(alpha=(0.1, 0.2, 0.3)).check(info)
