"""The tables of a store, and how an older store becomes a newer one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from tokenred.analysis.study.errors import StoreError

__all__ = ["APPLICATION", "STEPS", "bring_up_to_date", "transaction"]

# "tokr": says whose database this is.
APPLICATION = 0x746F6B72

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
)


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


def bring_up_to_date(connection: sqlite3.Connection, name: str, readonly: bool = False) -> None:
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
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {len(STEPS)}")


def _check(connection: sqlite3.Connection, name: str) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION and (tables or version):
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
