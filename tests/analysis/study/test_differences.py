"""Paired differences between stored rows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.analysis.study.stubs import row
from tests.analysis.study.test_store import packed
from tokenred.analysis.measure.intervals import paired_difference
from tokenred.analysis.study.differences import Differences
from tokenred.analysis.study.store import Store


@pytest.fixture
def filled(store: Store) -> Store:
    store.write([row("a", packed=packed([0] * 30 + [1] * 10)), row("failed", "failed"),
                 row("b", packed=packed([0] * 20 + [1] * 20)),
                 row("other", packed=packed([0] * 40, first=9))])  # fmt: skip
    return store


def test_in_percentage_points(filled: Store) -> None:
    find = Differences(filled, 0.9)
    a, b = (filled.predictions(key).correct for key in "ab")
    gap = paired_difference(a, b, 0.9)
    assert find("a", "b") == pytest.approx({
        "difference": 25.0, "difference_low": 100 * gap.low, "difference_high": 100 * gap.high,
        "p_value": gap.p_value,
    })  # fmt: skip
    assert find.fresh == {("a", "b"): gap}
    assert find("b", "a")["difference"] == -25.0


def test_none_without_common_images(filled: Store) -> None:
    find = Differences(filled, 0.95)
    assert find("a", "other") == find("a", "failed") == find("a", "nothing") == {}
    assert find.fresh == {}


def test_each_is_computed_once(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Differences(filled, 0.95)
    expected = first("a", "b")

    def never(*_: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(Store, "compare", never)
    assert first("a", "b") == expected
    filled.keep_comparisons(first.fresh)
    second = Differences(filled, 0.95)
    assert second("a", "b") == expected
    assert second.fresh == {}
    with pytest.raises(AssertionError, match="again"):
        Differences(filled, 0.9)("a", "b")
