"""What a report can be made from, and what its rows are compared with."""

from pathlib import Path

import pytest

from tokenred.analysis import Grid, Store, paired_difference
from tokenred.analysis.reports.source import OVERSMOOTHING, RESULTS, SWEEP, read_source
from tokenred.core.errors import DataError, InputError, TokenredError


def test_a_store_by_path_or_itself(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "results.bin"
    other.write_bytes(store.read_bytes())
    for given in (store, str(store), Store(store, readonly=True), other):
        source = read_source(given)
        assert source.kind == RESULTS
        assert source.axes == ("alpha", "P", "theta")
        assert len(source.frame) == 6
    assert read_source(store).name == "runs.db"


def test_kinds(comparison, sweep, curves) -> None:  # type: ignore[no-untyped-def]
    assert read_source(comparison).kind == RESULTS
    assert read_source(comparison).axes == ()
    for rows in (sweep, sweep.assign(top1=None), sweep.drop(columns=["speedup"])):
        assert read_source(rows).kind == SWEEP
    assert read_source(curves).kind == OVERSMOOTHING


def test_rows_of_a_store_are_paired_with_dense(store: Path) -> None:
    opened = Store(store, readonly=True)
    source = read_source(opened)
    assert "dense model" in source.note
    assert "95% paired intervals" in source.note
    by = source.frame.set_index("key")
    dense = by.index[by["method"] == "dense"][0]
    for key, row in by.iterrows():
        if key == dense or row["status"] != "done":
            assert row["difference"] != row["difference"]  # NaN: not from itself
            continue
        a, b = opened.predictions(key), opened.predictions(dense)
        expected = paired_difference(a.correct, b.correct)
        assert row["difference"] == pytest.approx(100 * expected.difference)
        assert row["difference_low"] == pytest.approx(100 * expected.low)
        assert row["p_value"] == pytest.approx(expected.p_value)
    wide, narrow = (read_source(opened, level).frame for level in (0.99, 0.5))
    width = [(f["difference_high"] - f["difference_low"]).dropna() for f in (wide, narrow)]
    assert (width[0] > width[1]).all()


def test_paired_with_the_base_without_dense_or_not_at_all(tmp_path: Path) -> None:
    Grid("gtp:P=3", {"alpha": [0.3]}, model="digits", data="digits", limit=6, against="base").run(
        tmp_path / "a.db", progress=False
    )
    source = read_source(tmp_path / "a.db")
    assert "Differences are from gtp:P=3 in the same setting" in source.note
    assert source.frame["difference"].notna().tolist() == source.frame["alpha"].notna().tolist()
    Grid("gtp", {"P": [3]}, model="digits", metrics=()).run(tmp_path / "b.db", progress=False)
    source = read_source(tmp_path / "b.db")
    assert source.note == ""
    assert "difference" not in source.frame


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*nowhere\.db"):
        read_source(tmp_path / "nowhere.db")
    Store(tmp_path / "new.db").close()
    with pytest.raises(InputError, match="no results yet"):
        read_source(tmp_path / "new.db")
    (tmp_path / "broken.db").write_text("no database")
    with pytest.raises(TokenredError):
        read_source(tmp_path / "broken.db")


def test_paired_with_the_strategy_that_a_grid_was_told(tmp_path: Path) -> None:
    axes = {"scorer": ["DiagAttn", "CLSAttn"], "budget": [0.5, 0.7]}
    grid = Grid("gtp", axes, model="digits", data="digits", limit=12, against="tome")
    study = grid.run(tmp_path / "a.db", progress=False)
    source = read_source(tmp_path / "a.db")
    assert "Differences are from tome at the same budget in the same setting" in source.note
    told = source.frame.set_index("key")
    for row in study.records:
        own = told.loc[row["key"]]
        assert own["difference_from"] == row["difference_from"] == f"tome@{row['budget']}"
        assert own["difference"] == pytest.approx(row["difference"])
    others = told[told["method"] == "tome"]
    assert others["difference"].isna().all()
    assert others["difference_from"].tolist() == others["strategy"].tolist()
    fixed = Grid("gtp", {"base": ["topk@0.6", "evit@0.6"]}, model="digits", data="digits",
                 limit=12, against="gtp@0.6")  # fmt: skip
    fixed.run(tmp_path / "b.db", progress=False)
    assert "Differences are from gtp@0.6 in the same setting" in read_source(tmp_path / "b.db").note
