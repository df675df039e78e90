"""The file of a sweep: one line of JSON for each cell that is done, so that nothing is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from tokenred.core.errors import DataError

__all__ = ["append_result", "read_results"]

_BEGINNING = b'{"key": '


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a sweep's file, in the order in which they were measured.

    A last line that was cut off, as when the process was killed in the middle of it, is left out.

    Raises:
        DataError: for a file that is not there, or is no such file.
    """
    path = Path(path).expanduser()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the results {path}: {error.strerror}.") from error
    end = content.rfind(b"\n") + 1
    rows = []
    for number, line in enumerate(content[:end].splitlines(), start=1):
        try:
            row = json.loads(line)
            row["key"], row["status"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise _other(path, f"something else in line {number}") from error
        rows.append(row)
    rest = content[end:]
    if not rest.startswith(_BEGINNING[: len(rest)]):
        raise _other(path, f"something else in line {len(rows) + 1}")
    return rows


def _other(path: Path, got: str) -> DataError:
    return DataError(
        f"expected the results of a sweep in {path}, one line of JSON a cell, got {got}; "
        "choose another file."
    )


def append_result(path: Path, row: dict[str, Any]) -> None:
    """Add a row, and have it on the disk before this returns; a cut-off last line goes.

    Args:
        path: a file that `read_results` can read, or none yet.
        row: begins with its ``key``.
    """
    line = json.dumps(row, allow_nan=False).encode() + b"\n"
    with path.open("a+b") as file:
        _drop_cut_off(file)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _drop_cut_off(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 1))
    if file.read(1) not in (b"", b"\n"):
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
