"""EViT's fused token: the weighted sum of what goes, appended last."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from tokenred.attention import AttentionStats
from tokenred.core.errors import PartError
from tokenred.strategies import FusedToken
from tokenred.testing import Sample, draw

QUICK = settings(max_examples=20, deadline=None, derandomize=True)


@QUICK
@given(draw.reductions(draw.smooth_samples()))
def test_it_is_the_sum_of_what_goes_weighted_by_score(case: Sample) -> None:
    state, selection = case.state, case.selection
    after = FusedToken()(state, selection, state.graph, AttentionStats())
    p = state.num_prefix
    for image in range(state.x.shape[0]):
        keep, drop = selection.keep[image].numpy(), selection.drop[image].numpy()
        x, score = state.image[image].numpy(), selection.score[image].numpy()
        np.testing.assert_array_equal(after.image[image, :-1].numpy(), x[keep])
        # The weights do not add up to 1, and are not made to.
        np.testing.assert_allclose(
            after.image[image, -1].numpy(), score[drop] @ x[drop], atol=1e-12
        )
        assert after.index[image].tolist() == [*state.index[image, keep].tolist(), -1]
        if state.size is not None:
            size = state.size[image, p:].numpy()
            expected = [*size[keep], size[drop].sum()]
            np.testing.assert_allclose(after.size[image, p:].numpy(), expected, atol=1e-12)


def test_a_selection_without_scores_is_refused() -> None:
    @settings(max_examples=1, deadline=None, derandomize=True)
    @given(draw.reductions(draw.samples()))
    def refused(case: Sample) -> None:
        silent = replace(case.selection, score=None)
        with pytest.raises(PartError, match=r"returns none\. Use it with a scorer"):
            FusedToken()(case.state, silent, None, AttentionStats())

    refused()
