"""The SQLite file of a store: its tables, opening it, and explaining its errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenred.core.errors import TokenredError

# "tokr": says whose database this is.
_APPLICATION = 0x746F6B72
_VERSION = 3
_BUSY_SECONDS = 30
_TEXTS = (
    "study", "axes", "strategy", "method", "config", "fingerprint", "model", "weights", "data",
    "dtype", "metrics", "error", "traceback", "engine", "machine", "git_commit", "created",
    "image_size", "compile",
)  # fmt: skip
_TABLES = (
    f"""CREATE TABLE results (
        key TEXT PRIMARY KEY,
        status TEXT NOT NULL CHECK (status IN ('done', 'failed', 'skipped')),
        image_limit INTEGER,
        seed INTEGER NOT NULL,
        batch_size INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        seconds REAL NOT NULL,
        {", ".join(f"{name} TEXT NOT NULL DEFAULT ''" for name in _TEXTS)}
    )""",
    "CREATE TABLE images (digest TEXT PRIMARY KEY, count INTEGER NOT NULL, labels BLOB)",
    """CREATE TABLE predictions (
        key TEXT PRIMARY KEY REFERENCES results (key),
        images TEXT NOT NULL REFERENCES images (digest),
        answers BLOB NOT NULL
    )""",
    # What a second start need not compute again.
    "CREATE TABLE facts (stamp TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE comparisons (
        key TEXT NOT NULL,
        reference TEXT NOT NULL,
        level REAL NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (key, reference, level)
    ) WITHOUT ROWID""",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_VERSION}",
)
_ADVICE = {
    "full": "free some space on the disk and start again; finished cells are kept",
    "readonly": "check the permissions of the file and its folder, or choose another place",
    "unable to open": "check the permissions of the file and its folder, or choose another place",
    "not a database": "this is not a store, or it is damaged; choose another, or restore a copy",
    "malformed": "this is not a store, or it is damaged; choose another, or restore a copy",
    "locked": "another program is using the file; close it and start again",
    "": "choose another store",
}


class StoreError(TokenredError, RuntimeError):
    """A store that cannot be opened, read or written, or that another grid is writing to."""


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Errors of SQLite as `StoreError`, with what to do."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        advice = next(_ADVICE[word] for word in _ADVICE if word in text)
        raise StoreError(f"{what} ({text}): {advice}.") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Either the whole block takes effect or nothing does."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def open_store(path: Path | None, readonly: bool) -> sqlite3.Connection:
    """A connection to a store; None for one in memory."""
    if path is not None and path.is_dir():
        raise StoreError(f"expected the file of a store at {path}, got a folder.")
    if path is not None and not path.parent.is_dir():
        raise StoreError(f"expected a folder at {path.parent} for the store {path.name}, got none.")
    if readonly and (path is None or not path.is_file()):
        raise StoreError(f"expected a store to read at {path}, found none; check the path.")
    with explained(f"cannot open the store {path}"):
        connection = _to_read(path) if path and readonly else _connect(path or ":memory:")
        try:
            if _is_new(connection, path):
                with transaction(connection):
                    # Another process may have been faster.
                    if _is_new(connection, path):
                        for statement in _TABLES:
                            connection.execute(statement)
            if path is not None and not readonly:
                # Readers and the writer do not wait for each other.
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
    return connection


def _connect(address: str | Path, **options: Any) -> sqlite3.Connection:
    # A store is used by one thread at a time, but the garbage collector may run in another.
    connection: sqlite3.Connection = sqlite3.connect(
        address, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, **options
    )
    connection.row_factory = sqlite3.Row
    return connection


def _to_read(path: Path) -> sqlite3.Connection:
    address = path.resolve().as_uri()
    connection = _connect(f"{address}?mode=ro", uri=True)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError:
        # In a read-only folder, SQLite cannot create the file that links store and log.
        connection.close()
        return _connect(f"{address}?immutable=1", uri=True)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _is_new(connection: sqlite3.Connection, path: Path | None) -> bool:
    """Whether a file has no tables yet; refuses anything but a store of this version."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != _APPLICATION and (tables or version):
        raise StoreError(
            f"expected a store of tokenred at {path}, got another program's database; choose "
            "another file."
        )
    if version not in (0, _VERSION):
        age = "newer" if version > _VERSION else "older"
        raise StoreError(
            f"{path} was written by a {age} tokenred (store version {version}, this one knows "
            f"{_VERSION}). Use that tokenred, or choose another file."
        )
    return not tables
