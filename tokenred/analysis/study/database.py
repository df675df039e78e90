"""The file of a store: its tables, how it is opened, and what its errors say."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenred.core.errors import TokenredError

# "tokr": says whose database this is.
_APPLICATION = 0x746F6B72
_VERSION = 4
_BUSY_SECONDS = 30
_TABLES = (
    """CREATE TABLE results (
        key TEXT PRIMARY KEY,
        status TEXT NOT NULL CHECK (status IN ('done', 'failed', 'skipped')),
        axes TEXT NOT NULL,
        row TEXT NOT NULL
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
_PLACE = "check the permissions, and that it is a file in an existing folder; or choose another"
_DAMAGED = "this is not a store, or it is damaged; choose another, or restore a copy"
_ADVICE = {
    "full": "free some space on the disk and start again; finished cells are kept",
    "readonly": _PLACE,
    "unable to open": _PLACE,
    "not a database": _DAMAGED,
    "malformed": _DAMAGED,
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


def open_file(path: Path | None, readonly: bool) -> sqlite3.Connection:
    """A connection to a store; None for one in memory."""
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
    return connection


def _to_read(path: Path) -> sqlite3.Connection:
    address = path.resolve().as_uri()
    # Whoever reads a store that nobody writes to has to remove the log that SQLite makes for that.
    places = (path, path.parent, path.with_name(f"{path.name}-wal"))
    able, beside, logged = (os.access(place, os.W_OK) for place in places)
    mode = "rw" if able and beside and not logged else "ro"
    connection = _connect(f"{address}?mode={mode}", uri=True)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.Error:
        # In a read-only folder, SQLite cannot create the file that links store and log.
        connection.close()
        return _connect(f"{address}?immutable=1", uri=True)
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
        age = "a newer" if version > _VERSION else "an older"
        raise StoreError(
            f"{path} was written by {age} tokenred (store version {version}, this one knows "
            f"{_VERSION}). Use that tokenred, or choose another file."
        )
    return not tables
