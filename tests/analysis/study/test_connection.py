"""Opening a store, and files that are none."""

from __future__ import annotations

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


def test_a_folder_in_which_sqlite_cannot_make_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    with Store(path) as store:
        store.write([row("a")])
    real = sqlite3.connect

    class Refuses:
        def execute(self, query: str) -> None:
            raise sqlite3.OperationalError("unable to open database file")

        def close(self) -> None:
            pass

    def connect(address: Any, **options: Any) -> Any:
        return Refuses() if "mode=ro" in str(address) else real(address, **options)

    monkeypatch.setattr(connection.sqlite3, "connect", connect)
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
