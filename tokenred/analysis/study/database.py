"""The file of a store: its tables, older ones brought up to date, SQLite's errors explained."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tokenred.core.errors import TokenredError

__all__ = ["STEPS", "StoreError", "explained", "may_write", "open_store", "transaction"]

# "tokr": says whose database this is.
_APPLICATION = 0x746F6B72
_BUSY_SECONDS = 30
_RESULTS = """
CREATE TABLE results (
    key TEXT PRIMARY KEY,
    study TEXT NOT NULL,
    axes TEXT NOT NULL,
    strategy TEXT NOT NULL,
    method TEXT NOT NULL,
    config TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    model TEXT NOT NULL,
    weights TEXT NOT NULL,
    data TEXT NOT NULL,
    image_limit INTEGER,
    seed INTEGER NOT NULL,
    dtype TEXT NOT NULL,
    batch_size INTEGER NOT NULL,
    metrics TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('done', 'failed', 'skipped')),
    error TEXT NOT NULL,
    traceback TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    seconds REAL NOT NULL,
    engine TEXT NOT NULL,
    machine TEXT NOT NULL,
    git_commit TEXT NOT NULL,
    created TEXT NOT NULL
)
"""
_IMAGES = "CREATE TABLE images (digest TEXT PRIMARY KEY, count INTEGER NOT NULL, labels BLOB)"
_PREDICTIONS = """
CREATE TABLE predictions (
    key TEXT PRIMARY KEY REFERENCES results (key),
    images TEXT NOT NULL REFERENCES images (digest),
    answers BLOB NOT NULL
)
"""
_META = "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)"
_FACTS = "CREATE TABLE facts (stamp TEXT PRIMARY KEY, value TEXT NOT NULL)"
_COMPARISONS = """
CREATE TABLE comparisons (
    key TEXT NOT NULL,
    reference TEXT NOT NULL,
    level REAL NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (key, reference, level)
) WITHOUT ROWID
"""

# Step i turns a store of version i into one of version i + 1. Steps are added, never changed.
STEPS: tuple[tuple[str, ...], ...] = (
    (_RESULTS, _IMAGES, _PREDICTIONS, _META),
    # What need not be computed again at the second start.
    (_FACTS, _COMPARISONS),
    # Settings that only sweeps had.
    (
        "ALTER TABLE results ADD COLUMN image_size TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE results ADD COLUMN compile TEXT NOT NULL DEFAULT 'false'",
    ),
)


class StoreError(TokenredError, RuntimeError):
    """A store that cannot be opened, read, written, or that another grid is writing to."""


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
            _bring_up_to_date(connection, str(path), readonly)
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


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors, such as a full disk, have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _bring_up_to_date(connection: sqlite3.Connection, name: str, readonly: bool = False) -> None:
    """Make the tables of a new store, or add to an older one what it lacks, at once or not at all.

    Raises:
        StoreError: for a store of a newer tokenred, a database of something else, or an older
            store that may only be read.
    """
    version = _check(connection, name)
    if version == len(STEPS):
        return
    if readonly:
        raise StoreError(
            f"{name} is a store of version {version}, and this tokenred reads version "
            f"{len(STEPS)}; open it once where it may be written, and it is brought up to date."
        )
    with transaction(connection):
        # Another process may have been quicker.
        version = _check(connection, name)
        for step in STEPS[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {len(STEPS)}")


def _check(connection: sqlite3.Connection, name: str) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != _APPLICATION and (tables or version):
        raise StoreError(
            f"expected a store of tokenred at {name}, got another program's database; choose "
            "another file."
        )
    if version > len(STEPS):
        raise StoreError(
            f"{name} was written by a newer tokenred (store version {version}, this one knows "
            f"up to {len(STEPS)}). Upgrade tokenred, or choose another file."
        )
    return int(version)
