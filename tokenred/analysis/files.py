"""Outputs: never over an older one by accident, never half-written."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tokenred.core.errors import DataError, OutputExistsError
from tokenred.core.files import write_whole

__all__ = ["check_new", "prepare_folder", "write_atomically"]


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
    """
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    return write_whole(path, lambda place: place.write_bytes(content))
