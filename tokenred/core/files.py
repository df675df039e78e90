"""Files that are whole or not there at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

__all__ = ["exists", "write_whole"]


def exists(path: str | Path) -> bool:
    """Whether something lies there; False for what can be no path (too long, a null byte)."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a file without a name, and give it its name once it is complete.

    Where the system knows no nameless files (they are Linux's), a hidden file beside the place
    stands in.

    Args:
        path: where the file belongs; an older one is replaced.
        write: fills the file whose path it is given. Where it raises, or the process is killed,
            nothing is left behind.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle, place = _nameless(draft)
    try:
        write(place)
        if place is not draft:
            # The directory is not looked at; naming one is what makes Python follow the link.
            os.link(place, draft, src_dir_fd=handle, follow_symlinks=True)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    return path


def _nameless(draft: Path) -> tuple[int, Path]:
    """An empty file, open, and the path that leads to it: ``draft`` itself where it has a name."""
    with contextlib.suppress(AttributeError, OSError):
        handle = os.open(draft.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
        place = Path(f"/proc/self/fd/{handle}")
        if place.exists():
            return handle, place
        os.close(handle)
    return os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666), draft
