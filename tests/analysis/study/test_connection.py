"""Opening a store, and files that are none."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.study.stubs import row
from tokenred.analysis.study import connection
from tokenred.analysis.study.errors import StoreError
from tokenred.analysis.study.store import Store


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("dear diary, " * 200)
    for readonly in (False, True):
        with pytest.raises(StoreError, match="no store, or damaged"):
            Store(path, readonly=readonly)
    assert path.read_text().startswith("dear diary")


def test_places_where_no_store_can_be(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="got a folder"):
        Store(tmp_path)
    with pytest.raises(StoreError, match="expected a folder"):
        Store(tmp_path / "none" / "a.db")
    with pytest.raises(StoreError, match="found none"):
        Store(tmp_path / "a.db", readonly=True)
    assert not (tmp_path / "a.db").exists()


def test_permissions_that_forbid_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    with Store(path) as store:
        store.write([row("a")])
    monkeypatch.setattr(connection.os, "access", lambda place, mode: False)
    assert not connection.may_write(path)
    assert connection.may_write(None)
    with Store(path) as store:
        assert len(store) == 1
        with pytest.raises(StoreError, match="can only be read"), store.writing():
            pass
        with pytest.raises(StoreError, match="check the permissions"):
            store.write([row("b")])
        assert len(store) == 1


def _refuse_shared_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """As SQLite does where it cannot make the file that readers share."""
    real = sqlite3.connect

    class Refuses:
        def execute(self, query: str) -> None:
            raise sqlite3.OperationalError("unable to open database file")

        def close(self) -> None:
            pass

    def connect(address: Any, **options: Any) -> Any:
        return Refuses() if "mode=ro" in str(address) else real(address, **options)

    monkeypatch.setattr(connection.sqlite3, "connect", connect)


def test_a_folder_in_which_sqlite_cannot_make_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    with Store(path) as store:
        store.write([row("a")])
    _refuse_shared_files(monkeypatch)
    with Store(path, readonly=True) as store:
        assert len(store) == 1


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("database or disk is full", "free some space"),
        ("attempt to write a readonly database", "check the permissions"),
        ("database disk image is malformed", "restore a copy"),
        ("database is locked", "close it"),
        ("something new", "choose another store"),
    ],
)
def test_errors_say_what_to_do(text: str, advice: str) -> None:
    with pytest.raises(StoreError, match=f"here .*{text}.*{advice}"), connection.explained("here"):
        raise sqlite3.OperationalError(text)


def test_the_file_alone_holds_what_was_written(tmp_path: Path) -> None:
    path, alone = tmp_path / "a.db", tmp_path / "alone.db"
    with Store(path) as store, Store(path) as reader, store.writing():
        assert len(reader) == 0
        store.write([row("a")])
        store._due = 0.0
        store.write([row("b")])
        shutil.copyfile(path, alone)  # as after a kill, without its log
        assert len(Store(alone)) == 2


def test_a_log_beside_a_store_on_a_read_only_place_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, kept = tmp_path / "a.db", tmp_path / "kept"
    kept.mkdir()
    with Store(path) as store:
        store.write([row("a")])
        store._due = float("inf")
        store.write([row("b")])
        for name in ("a.db", "a.db-wal"):
            shutil.copyfile(tmp_path / name, kept / name)
    _refuse_shared_files(monkeypatch)
    with Store(kept / "a.db", readonly=True) as store:
        assert len(store) == 2
