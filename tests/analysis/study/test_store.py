"""Rows in, rows out; nothing lost, nothing doubled; files that are no store."""

import os
import shutil
import sqlite3
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.study.stubs import row
from tokenred.analysis.measure.accuracy import Evaluation
from tokenred.analysis.study.database import StoreError
from tokenred.analysis.study.rows import Packed, pack_predictions
from tokenred.analysis.study.store import Store
from tokenred.core.errors import InputError, UnknownNameError


def packed(rank: list[int], first: int = 0) -> Packed:
    ranks = np.array(rank, dtype=np.int64)
    places = np.arange(first, first + len(rank))
    return pack_predictions(Evaluation(places, places, places + ranks, ranks, 100, (), 0.0))


def test_a_finished_row_is_never_written_again_and_a_failed_one_is(store: Store) -> None:
    store.write([row("a", packed=packed([0, 300_000]), seconds=1.0), row("b", "failed", error="o")])
    store.write([row("a", packed=packed([5, 5]), seconds=2.0), row("b", packed=packed([0]))])
    assert [(r["seconds"], r["status"], r["error"]) for r in store.rows()] == [
        (1.0, "done", ""), (0.5, "done", "")
    ]  # fmt: skip
    assert store.predictions("a").rank.tolist() == [0, 300_000]
    assert store.predictions("b").correct.tolist() == [True]


def test_all_rows_or_none(store: Store) -> None:
    with pytest.raises(StoreError, match="CHECK"):
        store.write([row("a"), row("b", status="odd")])
    assert len(store) == 0


def test_rows_survive_closing(tmp_path: Path) -> None:
    keys = [f"k{i}" for i in range(1200)]
    with Store(tmp_path / "a.db") as store:
        store.write([row(key) for key in keys])
    with Store(tmp_path / "a.db", readonly=True) as store:
        assert len(store) == len(store.status(keys)) == len(list(store.rows(keys))) == 1200
        assert "results=1200" in repr(store)
    store.close()  # once more does no harm
    assert [place.name for place in tmp_path.iterdir()] == ["a.db"]  # no log beside it


def test_a_full_disk(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        store.write([row("a")])
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match=r"earlier results are kept .*full.*free some space"):
            store.write([row(f"b{i}", traceback="x" * 5000) for i in range(50)])
        assert len(store) == 1
        store._connection.execute("PRAGMA max_page_count = 100000")
        store.write([row("b")])
        assert [*store._ask("PRAGMA integrity_check")[0]] == ["ok"]


def test_readers_do_not_wait_for_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Store(path) as writer, Store(path, readonly=True) as reader:
        writer.write([row("a")])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE results SET status = 'failed'")
        assert reader.status(["a"])["a"][0] == "done"
        other.execute("COMMIT")
        other.close()
        assert reader.status(["a"])["a"][0] == "failed"


def test_frame(store: Store) -> None:
    assert store.frame().empty
    store.write([row("a"), row("b", "failed", luck=7.0, axes={"M": [1, 2]})])
    frame = store.frame()
    assert list(frame.columns[:4]) == ["alpha", "M", "strategy", "method"]
    assert frame["M"].tolist()[1] == (1, 2)
    assert (frame["top1"][0], frame["torch"].tolist()) == (90.0, ["2", "2"])
    names = list(frame.columns)
    assert names.index("top1") < names.index("luck") < names.index("status")
    assert names[-1] == "key"


def test_images_are_kept_once(store: Store) -> None:
    store.write([row(k, packed=packed([0, 1, 2])) for k in "abc"])
    store.write([row("d", packed=packed([0, 1, 2], first=7))])
    assert len(store._ask("SELECT * FROM images")) == 2
    assert store.predictions("d").index.tolist() == [7, 8, 9]


def test_differences_are_paired_and_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = [0] * 30 + [1] * 10, [0] * 20 + [1] * 20
    store.write([row("a", packed=packed(a)), row("b", packed=packed(b))])
    gap = store.compare("a", "b")
    assert (gap.difference, gap.only_a, gap.only_b) == (pytest.approx(0.25), 10, 0)
    found = store.difference("a", "b")
    assert found == pytest.approx({
        "difference": 25.0, "difference_low": 100 * gap.low, "difference_high": 100 * gap.high,
        "p_value": gap.p_value,
    })  # fmt: skip
    assert store.comparisons(0.95) == {("a", "b"): asdict(gap)}
    assert store.comparisons(0.9) == {}
    # What is kept is not computed again.
    monkeypatch.setattr(Store, "compare", None)
    assert store.path is not None
    with Store(store.path) as again:
        assert again.difference("a", "b") == found


def test_a_strategy_stands_for_its_only_row(store: Store) -> None:
    store.write([
        row("a", strategy="mine", packed=packed([0])), row("b", strategy="gtp", packed=packed([1])),
        row("c", strategy="gtp"),
    ])  # fmt: skip
    assert store.compare("mine", "b") == store.compare("a", "b")
    with pytest.raises(InputError, match=r"a key, .* 'gtp': b, c"):
        store.predictions("gtp")


def test_a_strategy_is_known_in_every_spelling_and_as_tables_print_it(store: Store) -> None:
    strategies = {
        "tome@0.6": {"base": "tome"},
        "gtp:scorer=MixedAttn,fuser=propagate@0.6": {"scorer": "MixedAttn", "fuser": "propagate"},
        "gtp:scorer=CLSAttn,fuser=merge@0.6": {"scorer": "CLSAttn", "fuser": "merge"},
        "gtp:scorer=CLSAttn,fuser=prune@0.6": {"scorer": "CLSAttn", "fuser": "prune"},
    }
    store.write([
        row(str(i), strategy=strategy, axes=axes, packed=packed([i]))
        for i, (strategy, axes) in enumerate(strategies.items())
    ])  # fmt: skip
    named = {"tome": 0, "tome:P=5@0.6": None, "ToMe@0.60": 0, "gtp@0.6": 1, "gtp:P=4@0.6": None}
    named |= {"gtp:fuser=merge,scorer=CLSAttn@0.6": 2, "prune": 3, "MixedAttn": 1, "gtp": None}
    for name, place in named.items():
        if place is None:
            with pytest.raises(UnknownNameError, match="key of this store"):
                store.predictions(name)
        else:
            assert store.predictions(name).rank.tolist() == [place]
    fit = "gtp:scorer=CLSAttn,fuser=merge@0.6, gtp:scorer=CLSAttn,fuser=prune@0.6;"
    with pytest.raises(InputError, match=f"a strategy, because several rows fit 'CLSAttn': {fit}"):
        store.predictions("CLSAttn")


def test_what_cannot_be_compared(store: Store) -> None:
    store.write([row("a", packed=packed([0])), row("b", packed=packed([0], first=3)), row("c")])
    with pytest.raises(InputError, match="different images"):
        store.compare("a", "b")
    with pytest.raises(InputError, match="no predictions"):
        store.compare("a", "c")
    with pytest.raises(UnknownNameError, match="key of this store"):
        store.predictions("z")
    assert {str(store.difference("a", other)) for other in ("b", "c", "nothing")} == {"{}"}


def test_a_store_in_memory() -> None:
    with Store() as store:
        store.write([row("a", error="cannot read '\udcff.png'")])  # a name that is no UTF-8
        (found,) = store.rows()
        assert found["error"] == "cannot read '?.png'"
        assert store.path is None


# ---------------------------------------------------------------- the file


def test_files_that_are_no_store(tmp_path: Path) -> None:
    names = ("notes", "other", "newer", "older")
    notes, other, newer, older = (tmp_path / f"{name}.db" for name in names)
    notes.write_text("dear diary, " * 200)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    for path, version in ((newer, 99), (older, 3)):
        Store(path).close()
        with sqlite3.connect(path) as connection:
            connection.execute(f"PRAGMA user_version = {version}")
        connection.close()
    messages = {
        notes: "not a store, or it is damaged",
        other: "another program's",
        newer: "by a newer tokenred",
        older: "by an older tokenred",
    }
    for path, message in messages.items():
        before = path.read_bytes()
        for readonly in (False, True):
            with pytest.raises(StoreError, match=message):
                Store(path, readonly=readonly)
        assert path.read_bytes() == before


def test_places_where_no_store_can_be(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none" / "a.db"):
        with pytest.raises(StoreError, match="that it is a file in an existing folder"):
            Store(place)
    with pytest.raises(StoreError, match="found none"):
        Store(tmp_path / "a.db", readonly=True)
    assert not (tmp_path / "a.db").exists()


def test_permissions_that_forbid_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    with Store(path) as store:
        store.write([row("a")])
    monkeypatch.setattr(os, "access", lambda place, mode: False)  # whoever runs this may be root
    with Store(path) as store:
        with pytest.raises(StoreError, match="can only be read"), store.writing():
            pass
        with pytest.raises(StoreError, match="check the permissions"):
            store.write([row("b")])
        assert len(store) == 1


def test_the_file_alone_holds_what_was_written(tmp_path: Path) -> None:
    path, alone = tmp_path / "a.db", tmp_path / "alone.db"
    with Store(path) as store, Store(path) as reader:
        assert len(reader) == 0
        with store.writing():
            store.write([row("a")])
        shutil.copyfile(path, alone)  # as after a kill, without its log
        assert len(Store(alone)) == 1


def test_a_folder_in_which_sqlite_cannot_make_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path / "a.db") as store:
        store.write([row("a")])
    real = sqlite3.connect

    class Refuses:
        def execute(self, query: str) -> None:
            raise sqlite3.OperationalError("unable to open database file")

        def close(self) -> None:
            pass

    monkeypatch.setattr(
        sqlite3, "connect", lambda at, **o: Refuses() if "mode=ro" in str(at) else real(at, **o)
    )
    with Store(tmp_path / "a.db", readonly=True) as store:
        assert len(store) == 1
