"""γ·ψ: each aggregated over heads by itself, then multiplied."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings

from tokenred.strategies import MixedAttn
from tokenred.testing import Sample, draw

QUICK = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.mark.parametrize("exclude_self", [True, False])
@pytest.mark.parametrize(("aggregate", "over_heads"), [("max", np.max), ("mean", np.mean)])
def test_it_is_the_product_of_the_aggregates(
    full_map: Callable[[Sample], np.ndarray],
    aggregate: str,
    over_heads: Callable[..., np.ndarray],
    exclude_self: bool,
) -> None:
    @QUICK
    @given(draw.smooth_samples())
    def check(sample: Sample) -> None:
        p, scorer = sample.state.num_prefix, MixedAttn(aggregate, exclude_self)
        attention = full_map(sample)
        diagonal = np.diagonal(attention, axis1=-2, axis2=-1)[..., p:]
        column_sum = attention.sum(axis=-2)[..., p:] - exclude_self * diagonal
        expected = over_heads(diagonal, axis=1) * over_heads(column_sum, axis=1)
        score = scorer(sample.state, sample.attention(scorer.requires))
        np.testing.assert_allclose(score.numpy(), expected, atol=1e-12)

    check()
