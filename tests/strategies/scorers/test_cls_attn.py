"""The attention of the class token, wherever it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from tokenred.core.errors import ConfigError
from tokenred.strategies import BroadAttn, CLSAttn
from tokenred.testing import Sample, draw
from tokenred.testing.sample import model_info

QUICK = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.mark.parametrize(("aggregate", "over_heads"), [("max", np.max), ("mean", np.mean)])
def test_it_is_the_cls_row(
    full_map: Callable[[Sample], np.ndarray], aggregate: str, over_heads: Callable[..., np.ndarray]
) -> None:
    @QUICK
    @given(
        draw.samples(needs_cls=True, dtypes=draw.DTYPES[1:2], flavours=("normal",), sparse=False)
    )
    def check(sample: Sample) -> None:
        state, scorer = sample.state, CLSAttn(aggregate=aggregate)
        with np.errstate(divide="ignore"):  # log 0 of dead tokens
            row = full_map(sample)[:, :, state.cls_index, state.num_prefix :]
        score = scorer(state, sample.attention(scorer.requires))
        np.testing.assert_allclose(score.numpy(), over_heads(row, axis=1), atol=1e-12)

    check()


def test_a_model_without_cls_is_refused() -> None:
    registers = replace(model_info(8, (2, 2)), cls_index=None, num_prefix=4)
    with pytest.raises(ConfigError, match=r"reads the attention of a CLS token.*4 prefix tokens"):
        CLSAttn().check(registers)
    CLSAttn().check(model_info(8, (2, 2)))


def test_received_attention_may_stand_in() -> None:
    scorer = CLSAttn(aggregate="mean", without_cls="column_sum")
    info = model_info(8, (2, 2))
    scorer.check(replace(info, cls_index=None))
    assert scorer.build(replace(info, cls_index=None)) == BroadAttn(aggregate="mean")
    assert scorer.build(info) is scorer
