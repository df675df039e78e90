"""Merging: size-weighted means, nothing lost."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings

from tokenred.attention import AttentionStats
from tokenred.core.state import Selection, TokenState
from tokenred.strategies import Merge
from tokenred.testing import Sample, draw

QUICK = settings(max_examples=20, deadline=None, derandomize=True)
DOUBLE = (torch.float64,)


def merged(case: Sample, partner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and sizes after merging, token by token."""
    state = case.state
    x, p = state.image.numpy(), state.num_prefix
    size = np.ones(x.shape[:2]) if state.size is None else state.size[:, p:].double().numpy()
    keep, drop = case.selection.keep.numpy(), case.selection.drop.numpy()
    tokens, sizes = np.zeros((*keep.shape, x.shape[2])), np.zeros(keep.shape)
    for b, place in np.ndindex(*keep.shape):
        here = keep[b, place]
        family = [here, *(d for d, to in zip(drop[b], partner[b], strict=True) if to == here)]
        sizes[b, place] = size[b, family].sum()
        weight = size[b, family] / sizes[b, place]
        tokens[b, place] = weight @ x[b, family]
    return tokens, sizes


@QUICK
@given(draw.reductions(draw.smooth_samples(), partners=True))
def test_each_group_becomes_its_size_weighted_mean(case: Sample) -> None:
    state = case.state
    after = Merge()(state, case.selection, None, AttentionStats())
    tokens, sizes = merged(case, case.selection.partner.numpy())
    np.testing.assert_allclose(after.image.numpy(), tokens, atol=1e-12)
    if state.size is not None:
        np.testing.assert_allclose(after.image_size.numpy(), sizes, atol=1e-12)


@QUICK
@given(draw.reductions(draw.smooth_samples(), partners=False))
def test_without_partners_the_most_similar_feature_takes_it(case: Sample) -> None:
    state, selection = case.state, case.selection
    x = state.image.numpy()
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    partner = np.zeros(selection.drop.shape, dtype=int)
    for b, place in np.ndindex(*partner.shape):
        kept = selection.keep[b].numpy()
        partner[b, place] = kept[np.argmax(unit[b, kept] @ unit[b, selection.drop[b, place]])]
    tokens, _ = merged(case, partner)
    after = Merge()(state, selection, None, AttentionStats())
    np.testing.assert_allclose(after.image.numpy(), tokens, atol=1e-12)


@QUICK
@given(draw.reductions(draw.samples(dtypes=DOUBLE, needs_size=True)))
def test_sizes_and_weighted_tokens_are_conserved(case: Sample) -> None:
    """Σs and Σs·x stay what they were, dead tokens among them or not."""
    state = case.state
    after = Merge()(state, case.selection, None, AttentionStats())
    before_size, after_size = state.image_size, after.image_size
    torch.testing.assert_close(after_size.sum(dim=1), before_size.sum(dim=1))
    torch.testing.assert_close(
        (after_size[..., None] * after.image).sum(dim=1),
        (before_size[..., None] * state.image).sum(dim=1),
        atol=1e-9,
        rtol=1e-9,
    )
    assert bool(after.x.isfinite().all())


def test_a_dead_token_that_nobody_joins_stays_what_it_is() -> None:
    x = torch.tensor([[[2.0], [3.0], [5.0]]])
    size = torch.tensor([[0.0, 1.0, 1.0]])
    state = TokenState(x, torch.arange(3)[None], 0, (1, 3), size=size)
    selection = Selection(torch.tensor([[0, 1]]), torch.tensor([[2]]), torch.tensor([[1]]))
    after = Merge()(state, selection, None, AttentionStats())
    assert after.x[0, :, 0].tolist() == [2.0, 4.0]
    assert after.size.tolist() == [[0.0, 2.0]]


def test_half_precision_counts_large_groups_right() -> None:
    """In bfloat16 the sum of 300 ones would stop at 256."""
    n = 301
    state = TokenState(
        torch.ones(1, n, 1, dtype=torch.bfloat16),
        torch.arange(n)[None],
        0,
        (1, n),
        size=torch.ones(1, n),
    )
    selection = Selection(
        torch.tensor([[0]]), torch.arange(1, n)[None], torch.zeros(1, n - 1, dtype=torch.long)
    )
    after = Merge()(state, selection, None, AttentionStats())
    assert after.size.tolist() == [[301.0]]
    assert after.x.item() == 1.0
