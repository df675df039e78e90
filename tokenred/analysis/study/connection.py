"""Opening the file of a store, and what SQLite's errors mean."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tokenred.analysis.study.errors import StoreError
from tokenred.analysis.study.schema import bring_up_to_date

__all__ = ["explained", "may_write", "open_store"]

_BUSY_SECONDS = 30


def may_write(path: Path | None) -> bool:
    """Whether a store may be written: SQLite needs the file and its folder."""
    if path is None:
        return True
    return os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))


def open_store(path: Path | None, readonly: bool) -> sqlite3.Connection:
    """A connection to a store of the present version; None for one in memory.

    Raises:
        StoreError: for a file that is no store, of a newer version, or that cannot be opened.
    """
    if path is not None and path.is_dir():
        raise StoreError(f"expected the file of a store at {path}, got a folder.")
    if path is not None and not path.parent.is_dir():
        raise StoreError(f"expected a folder at {path.parent} for the store {path.name}, got none.")
    if readonly and (path is None or not path.is_file()):
        raise StoreError(f"expected a store to read at {path}, found none; check the path.")
    connection = None
    with explained(f"cannot open the store {path}"):
        try:
            connection = _connect(path, readonly)
            bring_up_to_date(connection, str(path), readonly)
            if path is not None and not readonly:
                # Readers and the writer do not wait for each other.
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            if connection is not None:
                connection.close()
            raise
    return connection


def _connect(path: Path | None, readonly: bool) -> sqlite3.Connection:
    options: dict[str, Any] = {
        "timeout": _BUSY_SECONDS,
        "isolation_level": None,
        # A store is used by one thread at a time, but the garbage collector may run in another.
        "check_same_thread": False,
    }
    connection: sqlite3.Connection
    if path is None or not readonly:
        connection = sqlite3.connect(path or ":memory:", **options)
        return connection
    address = path.resolve().as_uri()
    connection = sqlite3.connect(f"{address}?mode=ro", uri=True, **options)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError:
        connection.close()
        if _log(path).exists():
            return _copied(path, options)
        # In a folder that cannot be written, SQLite wants to be told that nobody else writes.
        connection = sqlite3.connect(f"{address}?immutable=1", uri=True, **options)
    return connection


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _copied(path: Path, options: dict[str, Any]) -> sqlite3.Connection:
    """A store with its log, in memory: beside it SQLite cannot make the file that joins them."""
    connection: sqlite3.Connection = sqlite3.connect(":memory:", **options)
    with tempfile.TemporaryDirectory() as folder:
        for source in (path, _log(path)):
            shutil.copyfile(source, Path(folder, source.name))
        with closing(sqlite3.connect(Path(folder, path.name))) as whole:
            whole.backup(connection)
    return connection


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Errors of SQLite as `StoreError`, with what to do."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "full" in text:
            advice = "free some space on the disk and start again; finished cells are kept"
        elif "readonly" in text or "unable to open" in text:
            advice = "check the permissions of the file and its folder, or choose another place"
        elif "not a database" in text or "malformed" in text:
            advice = "the file is no store, or damaged; choose another, or restore a copy"
        elif "locked" in text:
            advice = "another program holds the file; close it and start again"
        else:
            advice = "choose another store"
        raise StoreError(f"{what} ({text}): {advice}.") from error
