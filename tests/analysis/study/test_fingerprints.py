"""The quick fingerprint is the fingerprint."""

from __future__ import annotations

from typing import Any

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenred as tr
from tokenred.analysis.study.fingerprints import Fingerprints, parts_within
from tokenred.analysis.study.marks import marks_of
from tokenred.attention.score_mods import score_mods


def quick(strategy: tr.Strategy, fingerprints: Fingerprints | None = None) -> str:
    return (fingerprints or Fingerprints())(strategy, marks_of(strategy))


@pytest.mark.parametrize("name", tr.list_strategies())
def test_recipes(name: str) -> None:
    assert quick(tr.strategy(name)) == tr.strategy(name).fingerprint()


SHARED = Fingerprints()


@settings(max_examples=60, deadline=None)
@given(
    alpha=st.one_of(st.floats(0, 2), st.integers(0, 2), st.tuples(st.sampled_from([1, 1.0]))),
    M=st.integers(1, 9),
    theta=st.sampled_from([1, 1.0, 0.5]),
    P=st.sampled_from([None, 0, 8]),
    scorer=st.sampled_from(tr.list_scorers()),
    reference=st.booleans(),
)
def test_one_pass_over_many(**arguments: Any) -> None:
    strategy = tr.strategy("gtp", **arguments)
    assert quick(strategy, SHARED) == strategy.fingerprint()


def test_edits_and_parts_in_parts() -> None:
    class Around(tr.Scorer):
        inner: Any = None

    class Shift(tr.ScoreMod):
        by: float = 1.0

    strategy = tr.Strategy(Around(tr.scorers.DiagAttn()), score_mods=(Shift(), Shift(2.0)))
    assert quick(strategy) == strategy.fingerprint()
    assert [type(p).__name__ for p in parts_within(strategy.scorer)] == ["Around", "DiagAttn"]
    assert score_mods is not None


def test_an_own_part_that_has_travelled_is_still_the_same() -> None:
    class Mine(tr.Scorer):
        power: float = 1.0

        def __call__(self, state, attention):  # type: ignore[no-untyped-def]
            return state.image.norm(dim=-1)

    strategy = tr.Strategy(Mine())
    before = quick(strategy)
    cloudpickle.loads(cloudpickle.dumps(strategy))
    assert quick(strategy) == before == strategy.fingerprint()


def test_an_edited_part_is_seen_by_the_next_pass() -> None:
    def define(factor: float) -> tr.Strategy:
        class Mine(tr.Scorer):
            def __call__(self, state, attention, by=factor):  # type: ignore[no-untyped-def]
                return state.image.norm(dim=-1) * by

        return tr.Strategy(Mine())

    one, two = define(1.0), define(2.0)
    assert quick(one) != quick(two)
    assert quick(one) == one.fingerprint()
