"""Forgetting counts: by hand, what is dropped, what is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.core.errors import ConfigError, InputError
from tokenred.training.forgetting import ForgettingCounts

QUICK = settings(max_examples=50, deadline=None, derandomize=True)


@QUICK
@given(st.lists(st.lists(st.one_of(st.none(), st.booleans()), min_size=5, max_size=5), max_size=12))
def test_counts_by_hand(epochs: list[list[bool | None]]) -> None:
    """Each epoch shows some of five examples, in two batches."""
    found = ForgettingCounts(5)
    for epoch in epochs:
        for batch in ((0, 3), (4, 1, 2)):
            shown = [i for i in batch if epoch[i] is not None]
            right = torch.tensor([epoch[i] for i in shown], dtype=torch.bool)
            found.update(torch.tensor(shown, dtype=torch.long), right)
    for i in range(5):
        story = [epoch[i] for epoch in epochs if epoch[i] is not None]
        forgotten = sum(a and not b for a, b in pairwise(story))
        assert found.counts[i] == forgotten
        assert found.seen[i] == len(story)
        assert found.learned[i] == any(story)


def story(*rows: str) -> ForgettingCounts:
    """One row an example: 1 right, 0 wrong."""
    found = ForgettingCounts(len(rows))
    for epoch in zip(*rows, strict=True):
        found.update(torch.arange(len(rows)), torch.tensor([mark == "1" for mark in epoch]))
    return found


def test_the_never_forgotten_go_first_and_the_never_learned_stay() -> None:
    found = story("1010", "0000", "0011", "1111", "1110")
    assert found.counts.tolist() == [2, 0, 0, 0, 1]
    assert found.easy(0).tolist() == []
    assert found.easy(0.2).tolist() == [2]
    assert found.easy(0.4).tolist() == [2, 3]
    assert found.easy(0.6).tolist() == [2, 3, 4]
    assert found.easy(0.99).tolist() == [0, 2, 3, 4]
    # Seen more often without a slip is surer.
    found.update(torch.tensor([3]), torch.tensor([True]))
    assert found.easy(0.2).tolist() == [3]
    assert ForgettingCounts(4).easy(0.5).tolist() == []


def test_saved_and_loaded() -> None:
    found, other = story("10", "01", "11"), ForgettingCounts(3)
    other.load_state_dict(found.state_dict())
    for one in (found, other):
        one.update(torch.tensor([1]), torch.tensor([False]))
    assert other.counts.tolist() == found.counts.tolist() == [1, 1, 0]
    with pytest.raises(InputError, match="'counts' of 4 examples"):
        ForgettingCounts(4).load_state_dict(found.state_dict())
    with pytest.raises(InputError, match="got nothing"):
        ForgettingCounts(3).load_state_dict({})


def test_refusals() -> None:
    for examples in (0, -1, 2.0, True):
        with pytest.raises(ConfigError, match="a number of examples from 1"):
            ForgettingCounts(examples)
    found = ForgettingCounts(3)
    for index, correct in (
        ([0, 1], torch.tensor([True])),
        ([0], torch.tensor([1.0])),
        ([3], torch.tensor([True])),
        ([-1], torch.tensor([True])),
        ([1, 1], torch.tensor([True, False])),
    ):
        with pytest.raises(InputError):
            found.update(torch.tensor(index), correct)
    assert found.seen.sum() == 0
    for share in (1, -0.1, "half"):
        with pytest.raises(ConfigError, match=r"a share in \[0, 1\)"):
            found.easy(share)
