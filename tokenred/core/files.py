"""Outputs: whole or not there at all, and never over an older one by accident."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from tokenred.core.errors import ConfigError, DataError, OutputExistsError

__all__ = [
    "check_new",
    "check_output",
    "exists",
    "prepare_folder",
    "write_atomically",
    "write_whole",
]


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


def check_new(path: str | Path, *, overwrite: bool = False) -> Path:
    """A path that may be written.

    Raises:
        OutputExistsError: where something is there, unless it is a file and ``overwrite`` is true.
    """
    path = Path(path).expanduser()
    if path.is_dir() or (path.exists() and not overwrite):
        raise OutputExistsError(
            f"{path} exists. Choose another place, or allow overwriting "
            "(overwrite=True; --overwrite on the command line)."
        )
    return path


def check_output(path: str | Path, suffixes: tuple[str, ...], *, overwrite: bool = False) -> Path:
    """A file of some kind that may be written; call it before the work is done.

    Raises:
        ConfigError: for another suffix.
        OutputExistsError: where the file exists.
        DataError: where its folder is not there.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"expected a file that ends in {', '.join(suffixes)}, got {path.name!r}.")
    path = check_new(path, overwrite=overwrite)
    if not path.parent.is_dir():
        raise DataError(f"expected a folder at {path.parent}, found none; make it first.")
    return path


def prepare_folder(
    folder: str | Path, names: tuple[str, ...], *, overwrite: bool = False
) -> tuple[Path, ...]:
    """A folder ready to take some files, so that nothing fails after the work is done.

    Args:
        folder: made where it is not there.
        names: of the files.
        overwrite: whether older ones may be replaced.

    Returns:
        The paths of the files.

    Raises:
        OutputExistsError: where a file is there already, or another file is in the folder's place.
        DataError: for a folder that cannot be made or written to.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"expected a folder for the output at {folder}, got a file.")
    paths = tuple(check_new(folder / name, overwrite=overwrite) for name in names)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(
            f"expected to write into {folder}, but {error.strerror}; choose another folder."
        ) from error
    return paths


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write a file at once or not at all, text as UTF-8.

    Half a character, as in a file's name that is no UTF-8, is written as its code.

    Raises:
        DataError: where it cannot be written.
    """
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    try:
        return write_whole(path, lambda place: place.write_bytes(content))
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}; choose another place.") from error
