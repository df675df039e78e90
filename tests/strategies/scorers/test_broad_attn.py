"""ψ, the broadcasting ability, against the whole map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from tokenred.attention import QKV, AttentionSpec, AttentionStats, PlainEngine
from tokenred.core.state import TokenState
from tokenred.strategies import BroadAttn
from tokenred.testing import Sample, draw

QUICK = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.mark.parametrize("exclude_self", [True, False])
@pytest.mark.parametrize(("aggregate", "over_heads"), [("max", np.max), ("mean", np.mean)])
def test_it_is_the_column_sum_without_self_then_over_heads(
    full_map: Callable[[Sample], np.ndarray],
    aggregate: str,
    over_heads: Callable[..., np.ndarray],
    exclude_self: bool,
) -> None:
    @QUICK
    @given(draw.smooth_samples())
    def check(sample: Sample) -> None:
        p, scorer = sample.state.num_prefix, BroadAttn(aggregate, exclude_self)
        attention = full_map(sample).copy()
        if exclude_self:
            tokens = np.arange(attention.shape[-1])
            attention[..., tokens, tokens] = 0
        expected = over_heads(attention.sum(axis=-2)[..., p:], axis=1)
        score = scorer(sample.state, sample.attention(scorer.requires))
        np.testing.assert_allclose(score.numpy(), expected, atol=1e-12)

    check()


def _stats(scorer: BroadAttn, logits: torch.Tensor) -> tuple[TokenState, AttentionStats]:
    """One image without prefix, whose heads have these logits."""
    h, n, _ = logits.shape
    state = TokenState(torch.zeros(1, n, 1), torch.arange(n)[None], 0, (1, n))
    heads = QKV(logits[None], torch.eye(n).expand(1, h, n, n), torch.zeros(1, h, n, 1), 1.0)
    return state, PlainEngine()(heads, AttentionSpec(requires=scorer.requires), state)[1]


def test_self_is_left_out_head_by_head_before_the_maximum() -> None:
    # In head 0 token 0 attends to itself, and by that column wins the maximum; what others take
    # of it is larger in head 1.
    first = torch.tensor([[9.0, 0.0], [0.0, 9.0]])
    second = torch.tensor([[0.0, 9.0], [1.0, 0.0]])
    scorer = BroadAttn()
    state, attention = _stats(scorer, torch.stack((first, second)))
    score = scorer(state, attention)
    taken = torch.softmax(second[1], dim=0)[0]
    assert score[0, 0].item() == pytest.approx(taken.item(), abs=1e-6)


def test_prefix_rows_count_as_takers() -> None:
    scorer = BroadAttn(aggregate="mean")
    state, _ = _stats(scorer, torch.zeros(1, 3, 3))
    state = TokenState(state.x, torch.arange(2)[None], 1, (1, 2), cls_index=0)
    heads = QKV(torch.zeros(1, 1, 3, 1), torch.zeros(1, 1, 3, 1), torch.zeros(1, 1, 3, 1), 1.0)
    attention = PlainEngine()(heads, AttentionSpec(requires=scorer.requires), state)[1]
    # Uniform attention over 3 tokens: each of the two others, CLS among them, gives a third.
    assert scorer(state, attention).tolist() == [pytest.approx([2 / 3, 2 / 3])]
