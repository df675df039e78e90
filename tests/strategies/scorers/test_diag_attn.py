"""γ, the regeneration difficulty, against the whole map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings

from tokenred.strategies import DiagAttn
from tokenred.testing import Sample, draw

QUICK = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.mark.parametrize(("aggregate", "over_heads"), [("max", np.max), ("mean", np.mean)])
def test_it_is_the_diagonal_aggregated_over_heads(
    full_map: Callable[[Sample], np.ndarray], aggregate: str, over_heads: Callable[..., np.ndarray]
) -> None:
    @QUICK
    @given(draw.smooth_samples())
    def check(sample: Sample) -> None:
        p, scorer = sample.state.num_prefix, DiagAttn(aggregate=aggregate)
        diagonal = np.diagonal(full_map(sample), axis1=-2, axis2=-1)[..., p:]
        score = scorer(sample.state, sample.attention(scorer.requires))
        np.testing.assert_allclose(score.numpy(), over_heads(diagonal, axis=1), atol=1e-12)

    check()
