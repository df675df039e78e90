"""Output files: written completely or not at all, and never replaced by accident."""

import contextlib
import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenred.core.errors import ConfigError, DataError, OutputExistsError, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PICTURES = (".png", ".pdf", ".svg")
"""The files that a figure can be saved as."""

SAFE_SUFFIX = ".safetensors"
PICKLE_SUFFIXES = (".pth", ".pt", ".tar", ".bin")
"""The files that weights can be read from."""


def exists(path: str | Path) -> bool:
    """Whether the path exists; False for invalid paths (too long, a null byte)."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Write an unnamed file, and give it its name once it is complete.

    On systems without unnamed files (other than Linux), a hidden file in the same folder is used
    instead.

    Args:
        path: the destination; an existing file is replaced.
        write: called with the path of the file to fill. If it raises, or the process is killed,
            nothing is left behind.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle, place = _nameless(draft)
    try:
        write(place)
        if place is not draft:
            # The directory is not used; passing one makes Python follow the link.
            os.link(place, draft, src_dir_fd=handle, follow_symlinks=True)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    return path


def _nameless(draft: Path) -> tuple[int, Path]:
    """An open empty file and its path, which is ``draft`` if the file has a name."""
    with contextlib.suppress(AttributeError, OSError):
        handle = os.open(draft.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
        place = Path(f"/proc/self/fd/{handle}")
        if place.exists():
            return handle, place
        os.close(handle)
    return os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666), draft


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write a file completely or not at all, text as UTF-8.

    Lone surrogates, as in a file name that is not UTF-8, are written as their code.

    Raises:
        DataError: if the file cannot be written.
    """
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    try:
        return write_whole(path, lambda place: place.write_bytes(content))
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}; choose another path.") from error


def check_new(path: str | Path, *, overwrite: bool = False, resumable: bool = False) -> Path:
    """Check that a path may be written.

    Args:
        path: of a file.
        overwrite: whether it may be replaced.
        resumable: whether the caller could continue the run that wrote it (for the message).

    Raises:
        OutputExistsError: if the path is a folder, or a file that may not be replaced.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise OutputExistsError(f"expected the path of a file, got the folder {path}; name a file.")
    if path.exists() and not overwrite:
        more = "resume=True to continue the run that wrote it, " if resumable else ""
        raise OutputExistsError(
            f"{path} exists. Pass overwrite=True to replace it, {more}or choose another place to "
            "keep it."
        )
    return path


def check_suffix(path: str | Path, suffixes: tuple[str, ...]) -> Path:
    """The path of a file with one of these suffixes.

    Raises:
        ConfigError: for another one.
    """
    if not isinstance(path, str | Path):
        raise ConfigError(f"expected the path of a file, got {shown(path)}.")
    path = Path(path).expanduser()
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"expected a file that ends in {', '.join(suffixes)}, got {path.name!r}.")
    return path


def check_output(path: str | Path, suffixes: tuple[str, ...], *, overwrite: bool = False) -> Path:
    """Check that a file may be written, before the work is done.

    Raises:
        ConfigError: for another suffix.
        OutputExistsError: if the file exists.
        DataError: if its folder does not.
    """
    path = check_new(check_suffix(path, suffixes), overwrite=overwrite)
    if not path.parent.is_dir():
        found = "a file" if path.parent.exists() else "none"
        raise DataError(
            f"expected a folder at {path.parent}, found {found}; make it, or choose another."
        )
    return path


def check_folder(folder: str | Path) -> Path:
    """Check that a folder is there, or can be made; nothing is made.

    Raises:
        OutputExistsError: if it is a file.
        DataError: if it cannot be created or written to.
    """
    folder = Path(folder).expanduser()
    there = next(place for place in (folder, *folder.absolute().parents) if exists(place))
    if not there.is_dir():
        raise OutputExistsError(f"expected a folder for the output at {folder}; {there} is a file.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise DataError(f"cannot write to {there} for {folder}; choose another folder.")
    return folder


def prepare_folder(
    folder: str | Path, names: tuple[str, ...], *, overwrite: bool = False, resumable: bool = False
) -> tuple[Path, ...]:
    """Make a folder ready for some files, so that writing does not fail after the work is done.

    ``resumable`` is as for `check_new`.

    Returns:
        The paths of the files.

    Raises:
        OutputExistsError: if one of the files exists, or the folder is a file.
        DataError: if the folder cannot be created or written to.
    """
    folder = check_folder(folder)
    paths = tuple(
        check_new(folder / name, overwrite=overwrite, resumable=resumable) for name in names
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(
            f"cannot write to {folder}: {error.strerror}; choose another folder."
        ) from error
    return paths


def read_toml(source: str | Path) -> dict[str, Any]:
    """The values in TOML text, or in the file of that path.

    Raises:
        ConfigError: if the file cannot be read or is not TOML.
    """
    if not isinstance(source, str | Path):
        raise ConfigError(f"expected TOML, or the path of a .toml file; got {shown(source)}.")
    is_path = isinstance(source, Path) or ("\n" not in source and source.endswith(".toml"))
    try:
        text = Path(source).read_text(encoding="utf-8") if is_path else str(source)
        return tomllib.loads(text)
    except OSError as error:
        raise ConfigError(
            f"cannot read the file {shown(str(source))}: {error.strerror}."
        ) from error
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, or no path at all
        where = shown(str(source)) if is_path else "the text given"
        raise ConfigError(f"{where} is not valid TOML: {error}.") from error
