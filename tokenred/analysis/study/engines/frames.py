"""Bytes through a pipe, each message with its length before it."""

from __future__ import annotations

import struct
from typing import BinaryIO

__all__ = ["read_frame", "write_frame"]

_LENGTH = struct.Struct("<Q")


def write_frame(pipe: BinaryIO, content: bytes) -> None:
    """Write a message.

    Raises:
        OSError: where nobody reads any more.
    """
    pipe.write(_LENGTH.pack(len(content)))
    pipe.write(content)
    pipe.flush()


def read_frame(pipe: BinaryIO) -> bytes | None:
    """The next message; None where the other side is gone, also in the middle of a message."""
    head = _exactly(pipe, _LENGTH.size)
    return None if head is None else _exactly(pipe, _LENGTH.unpack(head)[0])


def _exactly(pipe: BinaryIO, count: int) -> bytes | None:
    found = pipe.read(count)
    return found if found is not None and len(found) == count else None
