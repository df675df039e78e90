"""One process at a time where two would spoil each other's files."""

import os
import platform
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime, timezone
from pathlib import Path

from tokenred.core.errors import DataError, OutputBusyError


@contextmanager
def process_lock(
    place: Path, busy: Callable[[str], Exception], wait: float = 0.0
) -> Iterator[None]:
    """Hold a lock for the length of the block.

    The lock is an open transaction on a small database: every system releases it when its process
    ends, in whatever way.

    Args:
        place: the lock's file, which is removed afterwards.
        busy: makes the error from who holds it, such as `` (process 12 on host, since …)``.
        wait: seconds to wait for another process.

    Raises:
        Exception: what ``busy`` makes.
        sqlite3.Error: if no file can be made there.
    """
    while True:
        before = _number(place)
        with closing(sqlite3.connect(place, timeout=wait, isolation_level=None)) as connection:
            try:
                _take(connection)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                raise busy(_holder(connection)) from error
            # The previous holder may have removed the file that was opened here.
            if (now := _number(place)) is None or before not in (None, now):
                continue
            try:
                yield
            finally:
                with suppress(OSError):  # Windows keeps open files
                    place.unlink()
            return


def _number(place: Path) -> int | None:
    try:
        return place.stat().st_ino
    except FileNotFoundError:
        return None


def _take(connection: sqlite3.Connection) -> None:
    since = datetime.now(timezone.utc).isoformat(timespec="seconds")
    me = f"process {os.getpid()} on {platform.node()}, since {since}"
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")
    # Once for others to read who it is, and once to keep.
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE IF NOT EXISTS holder (one PRIMARY KEY, value)")
    connection.execute("INSERT OR REPLACE INTO holder VALUES (1, ?)", (me,))
    connection.execute("COMMIT")
    connection.execute("BEGIN IMMEDIATE")


def _holder(connection: sqlite3.Connection) -> str:
    try:
        ((told,),) = connection.execute("SELECT value FROM holder").fetchall()
        return f" ({told})"
    except (sqlite3.Error, ValueError):  # it is only just being taken
        return ""


_held: ContextVar[frozenset[Path]] = ContextVar("tokenred_outputs_held", default=frozenset())


@contextmanager
def output_lock(output: Path) -> Iterator[None]:
    """Be the only one that writes into an existing folder, or to a file.

    Whoever holds it may take it again, as a command and the function that it calls do.

    Raises:
        OutputBusyError: at once, if another process holds it.
        DataError: if nothing can be written there.
    """
    if not output.parent.is_dir():
        raise DataError(f"expected a folder at {output.parent} for {output.name}, found none.")
    inside = output.is_dir()
    place = output / ".tokenred.lock" if inside else output.with_name(f".{output.name}.lock")
    held = _held.get()
    if place.absolute() in held:
        yield
        return

    def busy(holder: str) -> Exception:
        return OutputBusyError(
            f"another run is writing to {output}{holder}. Wait for it, or choose another place."
        )

    try:
        with process_lock(place, busy):
            token = _held.set(held | {place.absolute()})
            try:
                yield
            finally:
                _held.reset(token)
    except sqlite3.Error as error:
        raise DataError(
            f"cannot make the lock {place} ({error}); check the folder's permissions and space."
        ) from error
