"""Versions of the store."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.analysis.study.stubs import row
from tokenred.analysis.study import schema
from tokenred.analysis.study.errors import StoreError
from tokenred.analysis.study.store import Store


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return int(found)


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of version 1, with a row."""
    path = tmp_path / "old.db"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", schema.STEPS[:1])
        with Store(path) as store:
            store.write([row("a")])
    assert version(path) == 1
    return path


def test_a_new_store_has_the_present_version(tmp_path: Path) -> None:
    Store(tmp_path / "a.db").close()
    assert version(tmp_path / "a.db") == len(schema.STEPS)


def test_an_older_store_is_brought_up_to_date(old: Path) -> None:
    with Store(old) as store:
        assert store.status(["a"])["a"][0] == "done"
        store.remember({"stamp": [1, 2]})
        assert store.fact("stamp") == [1, 2]
    assert version(old) == len(schema.STEPS)


def test_a_step_that_fails_leaves_the_store_as_it_was(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = (schema.STEPS[0], ("CREATE TABLE facts (stamp TEXT)", "CREATE TABLE results (no TEXT)"))
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", bad)
        with pytest.raises(StoreError, match="already exists"):
            Store(old)
    assert version(old) == 1
    with Store(old) as store:
        assert len(store) == 1


def test_an_older_store_that_may_only_be_read_is_refused(old: Path) -> None:
    with pytest.raises(StoreError, match="open it once where it may be written"):
        Store(old, readonly=True)
    assert version(old) == 1


def test_a_newer_store_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    Store(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(schema.STEPS) + 5}")
    connection.close()
    before = path.read_bytes()
    for readonly in (False, True):
        with pytest.raises(StoreError, match="newer tokenred"):
            Store(path, readonly=readonly)
    assert path.read_bytes() == before


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (a)")
    connection.close()
    with pytest.raises(StoreError, match="another program's"):
        Store(path)


def test_a_transaction_is_all_or_nothing() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (a)")

    def two_and_an_error() -> None:
        with schema.transaction(connection):
            connection.execute("INSERT INTO t VALUES (1)")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        two_and_an_error()
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    connection.close()
