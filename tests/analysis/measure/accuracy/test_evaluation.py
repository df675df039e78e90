"""Ranks and accuracies by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.analysis.measure.accuracy.evaluation import from_rows, ranked
from tokenred.core.errors import ConfigError

QUICK = settings(max_examples=50, deadline=None, derandomize=True)


@QUICK
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 9999))
def test_ranks_are_those_of_a_stable_sort(images: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Few levels, so that many are equal.
    logits = torch.randint(0, 3, (images, classes), generator=generator).float()
    labels = torch.randint(0, classes, (images,), generator=generator)
    rows = ranked(logits, labels, torch.arange(images) + 5)
    order = logits.sort(dim=1, descending=True, stable=True).indices
    for i, (index, label, prediction, rank) in enumerate(rows.tolist()):
        assert (index, label) == (i + 5, int(labels[i]))
        assert rank == order[i].tolist().index(label)
        assert logits[i, prediction] == logits[i].max()
        assert (prediction == label) == (rank == 0)


def test_shares_and_what_is_printed() -> None:
    rows = torch.tensor([[3, 0, 0, 0], [1, 2, 0, 4], [7, 1, 1, 0], [8, 4, 0, 1]])
    found = from_rows(rows, 6, (("torn.png", "torn"),), 1.25)
    assert found.index.tolist() == [3, 1, 7, 8]
    assert found.correct.tolist() == [True, False, True, False]
    assert (found.count, found.top1, found.topk(2), found.top5) == (4, 50, 75, 100)
    assert repr(found) == "Evaluation(top1=50.00, top5=100.00, count=4, skipped=1, seconds=1.2)"
    assert from_rows(rows, 5, (), 0.0).top5 == 100
    assert from_rows(rows, 4, (), 0.0).top5 is None
    for k in (0, 7):
        with pytest.raises(ConfigError, match="between 1 and 6"):
            found.topk(k)
