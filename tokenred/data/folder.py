"""Images in a folder; timm's reader follows circular links and blocks on a FIFO."""

from __future__ import annotations

import os
from collections import Counter, deque
from pathlib import Path

from tokenred.core.errors import DataError
from tokenred.data.layout import HIDDEN, SPLIT_NAMES, other_kind, pick_split
from tokenred.data.sources import FileSource, read_file

__all__ = ["FolderSource", "narrow_to_split", "walk"]

_FOLDER, _FILE = "folder", "file"


def narrow_to_split(root: Path, split: str | None) -> tuple[Path, str | None]:
    """Enter the split's folder, so that the others (a big train set) are not walked.

    Args:
        root: an image folder.
        split: the split to use; None for the preferred one.

    Returns:
        The folder to read, and the split that remains to be chosen inside it.

    Raises:
        DataError: if the folder cannot be read.
    """
    try:
        named = [entry for entry in root.iterdir() if entry.name in (*SPLIT_NAMES, split)]
        folders = [entry for entry in named if entry.is_dir()]
        holders = [f.name for f in folders if any(child.is_dir() for child in f.iterdir())]
    except OSError as error:
        raise DataError(
            f"expected a readable folder at {root}, got {error.strerror or error}; check its "
            "permissions."
        ) from error
    try:
        chosen = pick_split(holders, split, str(root))
    except DataError:
        # The split may be deeper, inside an enclosing folder; `layout` decides.
        return root, split
    return (root, split) if chosen is None else (root / chosen, None)


class FolderSource(FileSource):
    """The images below a folder.

    Args:
        root: the folder. Links are followed, but each folder is read once: in its own place if it
            lies below ``root``, otherwise at the first link to it.

    Raises:
        DataError: if the folder cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            super().__init__(*walk(root))
        except OSError as error:
            raise DataError(f"cannot read the folder {root} ({error}); check it.") from error

    def read(self, name: str) -> bytes:
        return read_file(self.root / name)


def walk(root: Path) -> tuple[list[str], Counter[str]]:
    """Paths of the regular files below a folder, and the number of other entries by kind."""
    files: list[str] = []
    others: Counter[str] = Counter()
    # The folder and its parents: a link to one of these leads back here.
    whole = root.resolve(strict=True)
    seen = {_identity(place.stat()) for place in whole.parents}
    waiting, links = deque([""]), deque[str]()
    while waiting or links:
        # Links last, so that a folder in its own place comes before a link to it.
        path = waiting.popleft() if waiting else links.popleft()
        if (me := _identity(os.stat(root / path))) in seen:
            others["link to a folder that was already read"] += 1
            continue
        seen.add(me)
        try:
            entries = sorted(os.scandir(root / path), key=lambda entry: entry.name)
        except PermissionError:
            if not path:
                raise
            others["folder without read permission"] += 1
            continue
        for entry in entries:
            below = f"{path}/{entry.name}" if path else entry.name
            kind = _kind(entry)
            if kind == _FILE:
                files.append(below)
            elif kind == _FOLDER and other_kind(below) != HIDDEN:
                (links if entry.is_symlink() else waiting).append(below)
            else:
                others[HIDDEN if kind == _FOLDER else kind] += 1
    return files, others


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return _FOLDER
        if entry.is_file():
            return _FILE
        os.stat(entry)
    except OSError:  # a broken or circular link, or one without permission
        return "link to nothing"
    return "FIFO, socket or device"


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
