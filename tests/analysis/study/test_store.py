"""Rows in, rows out; nothing lost, nothing doubled."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.study.stubs import row
from tokenred.analysis.measure.accuracy import Evaluation
from tokenred.analysis.study.cell import Packed
from tokenred.analysis.study.errors import StoreError
from tokenred.analysis.study.packing import pack_predictions
from tokenred.analysis.study.store import Store
from tokenred.core.errors import InputError, UnknownNameError


def packed(rank: list[int], first: int = 0) -> Packed:
    ranks = np.array(rank, dtype=np.int64)
    places = np.arange(first, first + len(rank))
    return pack_predictions(Evaluation(places, places, places + ranks, ranks, 100, (), 0.0))


def test_a_finished_row_is_never_written_again(store: Store) -> None:
    store.write([row("a", packed=packed([0, 1]), seconds=1.0)])
    store.write([row("a", packed=packed([5, 5]), seconds=2.0), row("b")])
    assert len(store) == 2
    assert [r["seconds"] for r in store.rows()] == [1.0, 0.5]
    assert store.predictions("a").rank.tolist() == [0, 1]


def test_a_failed_row_is_written_again(store: Store) -> None:
    store.write([row("a", status="failed", error="oh")])
    store.write([row("a", packed=packed([0]))])
    (found,) = store.rows()
    assert (found["status"], found["error"]) == ("done", "")
    assert store.predictions("a").correct.tolist() == [True]


def test_all_rows_or_none(store: Store) -> None:
    with pytest.raises(StoreError, match="CHECK"):
        store.write([row("a"), row("b", status="odd")])
    assert len(store) == 0


def test_rows_survive_closing(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        store.write([row(f"k{i}") for i in range(1200)])
    with Store(tmp_path / "a.db", readonly=True) as store:
        assert len(store) == 1200
        keys = [f"k{i}" for i in range(1200)]
        assert len(store.status(keys)) == len(list(store.rows(keys))) == 1200
        assert "results=1200" in repr(store)


def test_a_full_disk(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        store.write([row("a")])
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match=r"before is kept .*full.*free some space"):
            store.write([row(f"b{i}", traceback="x" * 5000) for i in range(50)])
        assert len(store) == 1
        store._connection.execute("PRAGMA max_page_count = 100000")
        store.write([row("b")])
        assert len(store) == 2
        assert store._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_readers_do_not_wait_for_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Store(path) as writer, Store(path, readonly=True) as reader:
        writer.write([row("a")])
        writer._connection.execute("BEGIN IMMEDIATE")
        writer._connection.execute("UPDATE results SET seconds = 9")
        assert [r["seconds"] for r in reader.rows()] == [0.5]
        writer._connection.execute("COMMIT")
        assert [r["seconds"] for r in reader.rows()] == [9.0]


def test_frame(store: Store) -> None:
    assert store.frame().empty
    store.write([row("a"), row("b", status="failed", metrics="{}", axes='{"M": [1, 2]}')])
    frame = store.frame()
    assert frame["key"].tolist() == ["a", "b"]
    assert list(frame.columns[:4]) == ["alpha", "M", "strategy", "method"]
    assert frame["M"].tolist()[1] == (1, 2)
    assert frame["top1"].tolist()[0] == 90.0
    assert frame["torch"].tolist() == ["2", "2"]


def test_images_are_kept_once(store: Store) -> None:
    store.write([row(k, packed=packed([0, 1, 2])) for k in "abc"])
    store.write([row("d", packed=packed([0, 1, 2], first=7))])
    assert store._ask("SELECT count(*) FROM images") == [(2,)]
    assert store.predictions("d").index.tolist() == [7, 8, 9]


def test_compare(store: Store) -> None:
    a, b = [0] * 30 + [1] * 10, [0] * 20 + [1] * 20
    store.write([row("a", packed=packed(a)), row("b", packed=packed(b))])
    gap = store.compare("a", "b")
    assert gap.difference == pytest.approx(0.25)
    assert (gap.only_a, gap.only_b) == (10, 0)
    assert store.comparisons() == {}
    store.keep_comparisons({("a", "b"): gap, ("b", "a"): store.compare("b", "a")})
    kept = store.comparisons(0.95)
    assert set(kept) == {("a", "b"), ("b", "a")}
    assert kept["a", "b"] == asdict(gap)
    assert store.comparisons(0.9) == {}


def test_what_cannot_be_compared(store: Store) -> None:
    store.write([row("a", packed=packed([0])), row("b", packed=packed([0], first=3)), row("c")])
    with pytest.raises(InputError, match="different images"):
        store.compare("a", "b")
    with pytest.raises(InputError, match="no predictions"):
        store.compare("a", "c")
    with pytest.raises(UnknownNameError, match="key of this store"):
        store.predictions("z")


def test_a_store_in_memory() -> None:
    with Store() as store:
        store.write([row("a")])
        assert len(store) == 1
        assert store.path is None


def test_another_thread_may_let_go_of_it(tmp_path: Path) -> None:
    held = [Store(tmp_path / "a.db")]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    with Store(tmp_path / "a.db") as store:
        store.write([row("a")])


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.db")
    store.close()
    store.close()
    with pytest.raises(sqlite3.ProgrammingError):
        store._connection.execute("SELECT 1")


def test_an_error_that_names_a_file_which_is_no_utf_8_is_stored() -> None:
    with Store() as store:
        store.write([row("a", error="cannot read '\udcff.png'")])
        (found,) = store.rows()
    assert found["error"] == r"cannot read '\udcff.png'"
