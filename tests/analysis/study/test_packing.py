"""Predictions as blobs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.analysis.measure.accuracy import Evaluation
from tokenred.analysis.study.packing import Predictions, pack, pack_predictions, unpack


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-(2**62), 2**62), max_size=20))
def test_comes_back(values: list[int]) -> None:
    column = np.array(values, dtype=np.int64)
    back = unpack(pack(a=column, b=column[::-1]))
    assert back["a"].dtype == np.int64
    assert back["a"].tolist() == values
    assert back["b"].tolist() == values[::-1]


def test_is_compact() -> None:
    answers = pack(prediction=np.arange(50_000) % 1000, rank=np.zeros(50_000, dtype=np.int64))
    assert len(answers) < 50_000 * 2  # of 800,000 bytes


def test_which_images_are_told_apart() -> None:
    def evaluation(index: list[int], label: list[int], rank: list[int]) -> Evaluation:
        i, x, r = (np.array(v, dtype=np.int64) for v in (index, label, rank))
        return Evaluation(i, x, x + r, r, 10, (), 0.0)

    one = pack_predictions(evaluation([0, 1, 2], [3, 1, 2], [0, 1, 0]))
    same = pack_predictions(evaluation([0, 1, 2], [3, 1, 2], [1, 1, 0]))
    other = pack_predictions(evaluation([0, 1, 3], [3, 1, 2], [0, 1, 0]))
    relabelled = pack_predictions(evaluation([0, 1, 2], [3, 1, 4], [0, 1, 0]))
    assert one.count == 3
    assert one.images == same.images
    assert one.answers != same.answers
    assert len({one.images, other.images, relabelled.images}) == 3
    found = Predictions(**unpack(one.labels), **unpack(one.answers))
    assert found.correct.tolist() == [True, False, True]
    assert found.prediction.tolist() == [3, 2, 2]


def test_no_pickles() -> None:
    with pytest.raises(ValueError, match="pickle"):
        unpack(_with_objects())


def _with_objects() -> bytes:
    import io

    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([object()]))
    return buffer.getvalue()
