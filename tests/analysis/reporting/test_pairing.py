"""Paired differences of a store's rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenred.analysis.measure.intervals.paired import paired_difference
from tokenred.analysis.reporting.pairing import paired_frame
from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.store import Store


def test_against_dense(store: Path) -> None:
    opened = Store(store, readonly=True)
    frame, note = paired_frame(opened)
    assert "95% paired intervals" in note
    by = frame.set_index("key")
    dense = by.index[by["method"] == "dense"][0]
    assert by.loc[dense, "difference"] != by.loc[dense, "difference"]  # NaN: not from itself
    for key, row in by[by["method"] == "gtp"].iterrows():
        if row["status"] != "done":
            assert row["difference"] != row["difference"]
            continue
        a, b = opened.predictions(key), opened.predictions(dense)
        expected = paired_difference(a.correct, b.correct)
        assert row["difference"] == pytest.approx(100 * expected.difference)
        assert row["difference_low"] == pytest.approx(100 * expected.low)
        assert row["p_value"] == pytest.approx(expected.p_value)


def test_another_level_is_computed_anew(store: Path) -> None:
    opened = Store(store, readonly=True)
    wide, narrow = (paired_frame(opened, level)[0] for level in (0.99, 0.5))
    width = [(f["difference_high"] - f["difference_low"]).dropna() for f in (wide, narrow)]
    assert (width[0] > width[1]).all()


def test_against_the_base_without_dense(tmp_path: Path) -> None:
    Grid("gtp:P=3", {"alpha": [0.3]}, model="digits", data="digits", limit=6, against="base").run(
        tmp_path / "a.db", progress=False
    )
    frame, note = paired_frame(Store(tmp_path / "a.db", readonly=True))
    assert "grid's base" in note
    assert frame["difference"].notna().tolist() == frame["alpha"].notna().tolist()


def test_nothing_to_compare_with(tmp_path: Path) -> None:
    Grid("gtp", {"P": [3]}, model="digits", metrics=()).run(tmp_path / "a.db", progress=False)
    frame, note = paired_frame(Store(tmp_path / "a.db", readonly=True))
    assert note == ""
    assert "difference" not in frame
