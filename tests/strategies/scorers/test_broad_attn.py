"""ψ, the broadcasting ability, against the whole map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings

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
