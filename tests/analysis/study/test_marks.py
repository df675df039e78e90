"""When parts are the same."""

from __future__ import annotations

from typing import Any

import tokenred as tr
from tokenred.analysis.study.marks import Memo, mark, marks_of


def test_equal_configurations_to_the_type() -> None:
    one = tr.fusers.Propagate(0.1)
    assert mark(one) == mark(tr.fusers.Propagate(0.1))
    assert hash(mark(one)) == hash(mark(tr.fusers.Propagate(0.1)))
    different = [
        tr.fusers.Propagate(0.2),
        tr.fusers.Propagate(1),
        tr.fusers.Propagate((1, 2)),
        tr.fusers.Prune(),
        tr.Constant(1),
        tr.Constant(1, fit=True),
        tr.scorers.Random(1),
    ]
    assert len({mark(part) for part in [one, *different]}) == len(different) + 1
    assert None not in {mark(part) for part in different}


def test_what_is_no_plain_value_has_no_mark() -> None:
    class Holds(tr.Scorer):
        inner: Any = None

    assert mark(Holds()) is not None
    assert mark(Holds(tr.scorers.DiagAttn())) is None
    assert mark(Holds([1])) is None
    assert mark(Holds((1, (2,)))) is None


def test_marks_of_a_strategy() -> None:
    strategy = tr.strategy("gtp", P=4)
    found = marks_of(strategy)
    assert found["fuser"] == mark(strategy.fuser)
    assert found["score_mods"] == ()
    assert "theta" not in found
    assert set(strategy.parts) <= set(found)


def test_memo() -> None:
    calls = []

    def make(value: int) -> int:
        calls.append(value)
        return value + 1

    memo: Memo[int] = Memo()
    assert [memo.get("a", make, 1), memo.get("a", make, 1), memo.get(None, make, 5)] == [2, 2, 6]
    assert memo.get(None, make, 5) == 6
    assert calls == [1, 5, 5]
    for key in range(10_000):
        assert memo.get(key, make, key) == key + 1
    assert len(memo._known) <= 4096
