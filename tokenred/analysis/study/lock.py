"""One grid writes to a store at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenred.analysis.study.errors import StoreError

__all__ = ["only_writer"]


@contextmanager
def only_writer(path: Path, wait: float, holder: str) -> Iterator[None]:
    """Be the one that writes, for the length of the block.

    The lock is a transaction on an empty database beside the store: every system lets go of it
    when its process ends, in whatever way.

    Args:
        path: of the store.
        wait: seconds to wait for another writer.
        holder: what is known of it, for the message.

    Raises:
        StoreError: where another one has it.
    """
    place = path.with_name(f"{path.name}.lock")
    connection = None
    try:
        connection = sqlite3.connect(place, timeout=wait, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        if "locked" in str(error):
            raise StoreError(
                f"another grid is writing to {path}{holder}. Wait for it (wait=SECONDS; --wait on "
                "the command line), or choose another store. What is stored can be read meanwhile."
            ) from error
        raise StoreError(
            f"cannot make the lock {place} ({error}); check the folder's permissions and space."
        ) from error
    try:
        yield
    finally:
        connection.close()
