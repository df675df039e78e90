"""Fusers against their definitions in NumPy, token by token."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.attention import AttentionStats
from tokenred.core.errors import ConfigError, PartError
from tokenred.core.state import Selection, TokenState
from tokenred.graphs import Graph, Spatial
from tokenred.strategies import FusedToken, Merge, Propagate, Prune
from tokenred.testing import Sample, draw
from tokenred.testing.sample import model_info

QUICK = settings(max_examples=20, deadline=None, derandomize=True)
NOTHING = AttentionStats()
SMOOTH = draw.smooth_samples()


@QUICK
@given(draw.reductions(draw.samples()))
def test_pruning_keeps_bit_for_bit_what_stays(case: Sample) -> None:
    state, keep = case.state, case.selection.keep
    after = Prune()(state, case.selection, state.graph, NOTHING)
    image = torch.arange(state.x.shape[0])[:, None]
    assert torch.equal(after.image, state.image[image, keep])
    assert torch.equal(after.index, state.index[image, keep])
    if state.size is not None:
        assert torch.equal(after.image_size, state.image_size[image, keep])
    # Propagation over no graph is pruning.
    moved = Propagate(alpha=0.7)(state, case.selection, None, NOTHING)
    assert torch.equal(moved.x, after.x)


@QUICK
@given(draw.reductions(SMOOTH))
def test_the_fused_token_is_the_sum_of_what_goes_weighted_by_score(case: Sample) -> None:
    state, chosen = case.state, case.selection
    after = FusedToken()(state, chosen, state.graph, NOTHING)
    for i, (keep, drop) in enumerate(zip(chosen.keep.numpy(), chosen.drop.numpy(), strict=True)):
        x, score = state.image[i].numpy(), chosen.score[i].numpy()
        # The weights do not add up to 1, and are not made to.
        expected = [*x[keep], score[drop] @ x[drop]]
        np.testing.assert_allclose(after.image[i], expected, atol=1e-12)
        assert after.index[i].tolist() == [*state.index[i, keep].tolist(), -1]
        if state.size is not None:
            size = state.image_size[i].numpy()
            expected = [*size[keep], size[drop].sum()]
            np.testing.assert_allclose(after.image_size[i], expected, atol=1e-12)
    with pytest.raises(PartError, match=r"returns none\. Use it with a scorer"):
        FusedToken()(state, replace(chosen, score=None), None, NOTHING)


# ---------------------------------------------------------------- propagation


@QUICK
@given(draw.reductions(SMOOTH), st.sampled_from((0.0, 0.1, 0.5, 1.0, 3.0)))
def test_propagation_is_equations_10_and_12(case: Sample, alpha: float) -> None:
    state, chosen = case.state, case.selection
    after = Propagate(alpha=alpha)(state, chosen, state.graph, NOTHING)
    b, n = state.index.shape
    # Â between living tokens; −1 is on no graph.
    weights = np.zeros((b, n, n))
    if state.graph is not None:
        dense = state.graph.dense().expand(b, -1, -1).numpy()
        for image, i, j in np.ndindex(b, n, n):
            at, to = state.index[image, i].item(), state.index[image, j].item()
            weights[image, i, j] = dense[image, at, to] if at >= 0 and to >= 0 else 0
    for i, (keep, drop) in enumerate(zip(chosen.keep.numpy(), chosen.drop.numpy(), strict=True)):
        moving, x = alpha * weights[i][np.ix_(keep, drop)], state.image[i].numpy()
        np.testing.assert_allclose(after.image[i], x[keep] + moving @ x[drop], atol=1e-12)
        if state.size is not None:
            s = state.image_size[i].numpy()
            np.testing.assert_allclose(after.image_size[i], s[keep] + moving @ s[drop], atol=1e-12)


def line() -> tuple[TokenState, Graph]:
    """Three patches in a row, with features 1, 10, 100."""
    x = torch.tensor([[[1.0], [10.0], [100.0]]])
    state = TokenState(x, torch.arange(3)[None], 0, (1, 3), size=torch.ones(1, 3))
    return state, Spatial()(x, (1, 3))


def test_a_token_without_a_kept_neighbour_is_lost() -> None:
    state, graph = line()
    # 0 and 1 go; 2 is a neighbour of 1 only, by a weight of 1/√(2·1).
    after = Propagate(0.5)(
        state, Selection(torch.tensor([[2]]), torch.tensor([[0, 1]])), graph, NOTHING
    )
    weight = 0.5 / math.sqrt(2)
    assert after.x.item() == pytest.approx(100 + weight * 10)
    assert after.size.item() == pytest.approx(1 + weight)


def test_alpha_may_differ_between_blocks() -> None:
    state, graph = line()
    selection = Selection(torch.tensor([[0, 2]]), torch.tensor([[1]]))
    fuser, weight = Propagate(alpha=(0.0, 0.2, 0.4)), 10 / math.sqrt(2)
    for layer, alpha in enumerate(fuser.alpha):
        moved = fuser(replace(state, layer=layer), selection, graph, NOTHING).x[0, 0, 0].item()
        assert moved == pytest.approx(1 + alpha * weight)
    info = model_info(8, (2, 2))
    Propagate(alpha=(0.1,) * info.depth).check(info)
    with pytest.raises(ConfigError, match=f"alpha has 3 values, .* has {info.depth} blocks"):
        fuser.check(info)


# ---------------------------------------------------------------- merging


@QUICK
@given(st.data(), st.booleans())
def test_each_group_becomes_its_size_weighted_mean(data: st.DataObject, partners: bool) -> None:
    case = data.draw(draw.reductions(SMOOTH, partners=partners))
    state, chosen = case.state, case.selection
    after = Merge()(state, chosen, None, NOTHING)
    x = state.image.numpy()
    size = np.ones(x.shape[:2]) if state.size is None else state.image_size.numpy()
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    for i, (keep, drop) in enumerate(zip(chosen.keep.numpy(), chosen.drop.numpy(), strict=True)):
        if partners:
            joins = chosen.partner[i].numpy()
        else:  # the most similar feature takes it
            joins = keep[(unit[i, drop] @ unit[i, keep].T).argmax(axis=1)]
        for slot, place in enumerate(keep):
            group = [place, *drop[joins == place]]
            total = size[i, group].sum()
            np.testing.assert_allclose(
                after.image[i, slot], size[i, group] @ x[i, group] / total, atol=1e-12
            )
            if state.size is not None:
                np.testing.assert_allclose(after.image_size[i, slot], total)


def test_a_dead_token_that_nobody_joins_stays_what_it_is() -> None:
    x, size = torch.tensor([[[2.0], [3.0], [5.0]]]), torch.tensor([[0.0, 1.0, 1.0]])
    state = TokenState(x, torch.arange(3)[None], 0, (1, 3), size=size)
    selection = Selection(torch.tensor([[0, 1]]), torch.tensor([[2]]), torch.tensor([[1]]))
    after = Merge()(state, selection, None, NOTHING)
    assert after.x[0, :, 0].tolist() == [2.0, 4.0]
    assert after.size.tolist() == [[0.0, 2.0]]


def test_half_precision_counts_large_groups_right() -> None:
    """In bfloat16 the sum of 300 ones would stop at 256."""
    n, x = 301, torch.ones(1, 301, 1, dtype=torch.bfloat16)
    state = TokenState(x, torch.arange(n)[None], 0, (1, n), size=torch.ones(1, n))
    drop = torch.arange(1, n)[None]
    after = Merge()(state, Selection(drop[:, :1] * 0, drop, drop * 0), None, NOTHING)
    assert (after.size.tolist(), after.x.item()) == ([[301.0]], 1.0)
