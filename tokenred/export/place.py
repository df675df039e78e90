"""Where an export goes: drafted beside its place, checked there, and moved."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tokenred.core.errors import ConfigError
from tokenred.core.files import prepare_folder

__all__ = ["check_place", "write_checked"]

T = TypeVar("T")


def check_place(path: str | Path, suffix: str, *extra: str, overwrite: bool = False) -> Path:
    """A path that may be written; its folder is made.

    Args:
        path: of the file.
        suffix: that it must have.
        extra: suffixes of files that will lie beside it, such as ``.onnx.data``.
        overwrite: whether older files may be replaced.

    Raises:
        ConfigError: for another suffix.
        OutputExistsError: where a file is there already.
        DataError: for a folder that cannot be written to.
    """
    path = Path(path).expanduser()
    if path.suffix != suffix:
        raise ConfigError(f"expected a file name ending in {suffix}, got {path.name!r}.")
    names = (path.name, *(path.stem + end for end in extra))
    return prepare_folder(path.parent, names, overwrite=overwrite)[0]


def write_checked(path: Path, write: Callable[[Path], T]) -> tuple[T, int]:
    """Write a file whole or not at all, and what belongs beside it.

    Args:
        path: of the file.
        write: fills the file whose path it is given (of the same name, in a folder of its own),
            puts others beside it where it has to, and checks them. Where it raises, nothing is
            left behind.

    Returns:
        What ``write`` returned, and the size of all its files in bytes.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        draft = Path(folder) / path.name
        result = write(draft)
        # The file itself comes last: once it is there, so is what it refers to.
        files = sorted(draft.parent.iterdir(), key=lambda file: file == draft)
        size = sum(file.stat().st_size for file in files)
        for file in files:
            os.replace(file, path.with_name(file.name))
    return result, size
