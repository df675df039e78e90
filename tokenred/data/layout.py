"""Find split and classes from the paths inside an image folder.

The layout is ``CLASS/IMAGE`` or ``SPLIT/CLASS/IMAGE``, inside any number of enclosing folders. A
class is the first folder below the split, however deep its images are.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tokenred.core.errors import DataError

# fmt: off
IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm",
    ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
)
# fmt: on
"""Suffixes of files that are read as images, in either case; Pillow reads all of them."""
HIDDEN = "hidden"

# In order of preference, if the caller names none.
_ALIASES: tuple[tuple[str, ...], ...] = (
    ("val", "validation", "valid"),
    ("test",),
    ("train", "training"),
)
_SPLIT_NAMES = tuple(name for names in _ALIASES for name in names)


def other_kind(path: str) -> str:
    """The kind of a file that is not an image: its suffix, or ``"hidden"``; "" for an image."""
    whole = PurePosixPath(path)
    if any(part.startswith(".") or part == "__MACOSX" for part in whole.parts):
        return HIDDEN
    suffix = whole.suffix.lower()
    return "" if suffix in IMAGE_SUFFIXES else suffix or "without a suffix"


class NoSplitsError(DataError):
    """A split of data that has classes only."""


def natural(text: str) -> tuple[object, ...]:
    """A case-insensitive sort key with 9 before 10: timm's order."""
    parts = re.split("([0-9]+)", text.lower())
    digits = [number.lstrip("0") for number in parts[1::2]]
    parts[1::2] = [(len(number), number) for number in digits]
    # The text itself breaks ties.
    return tuple(parts), text


def pick_split(found: Sequence[str], split: str | None, source: str) -> str | None:
    """Choose among folders: the requested split, or val, then test, then train; None without any.

    ``val``, ``validation`` and ``valid`` mean the same, and so do ``train`` and ``training``.
    """
    splits = [name for name in _SPLIT_NAMES if name in found]
    if split is None:
        return splits[0] if splits else None
    wanted = [split, *(name for names in _ALIASES if split in names for name in names)]
    chosen = next((name for name in wanted if name in found), None)
    if chosen is None:
        if not splits:
            raise NoSplitsError(
                f"expected a folder for the split {split!r} in {source}, found classes without "
                "splits; leave the split out."
            )
        raise DataError(
            f"expected a folder for the split {split!r} in {source}, found the splits "
            f"{', '.join(splits)}; choose one of them."
        )
    return chosen


def narrow_to_split(root: Path, split: str | None) -> tuple[Path, str | None]:
    """The folder to read (the split's own, so that others are not walked), and the split in it."""
    try:
        named = [entry for entry in root.iterdir() if entry.name in (*_SPLIT_NAMES, split)]
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
        # The split may be deeper, inside an enclosing folder; `find_layout` decides.
        return root, split
    return (root, split) if chosen is None else (root / chosen, None)


def told(others: Mapping[str, int]) -> str:
    """Describe the files that are not images, in case the user expected images."""
    shown = sorted((kind, count) for kind, count in others.items() if kind != HIDDEN)
    return ", ".join(f"{count} × {kind}" for kind, count in shown)


def find_layout(
    paths: Sequence[str], split: str | None, source: str, others: Mapping[str, int]
) -> dict[str, str]:
    """The images of a split (None: the preferred one) among relative paths, with their classes.

    ``source`` and its other files, by kind, are for messages.
    """
    if not paths:
        instead = told(others)
        raise DataError(
            f"expected images in {source}, found none{f' but {instead}' if instead else ''}; it "
            "should contain CLASS/IMAGE or SPLIT/CLASS/IMAGE, images ending in "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    parts = {path: PurePosixPath(path).parts for path in paths}
    depth = _wrapper_depth(list(parts.values()), split)
    below = {path: part[depth:] for path, part in parts.items()}
    found = {part[0] for part in below.values() if len(part) > 2}
    # A folder with images directly in it is a class, even one that is called "test".
    found -= {part[0] for part in below.values() if len(part) == 2}
    chosen = pick_split(sorted(found), split, source)
    if chosen is not None:
        below = {path: part[1:] for path, part in below.items() if part[0] == chosen}
    loose = [path for path, part in below.items() if len(part) < 2]
    if loose:
        raise DataError(
            f"expected every image of {source} in a folder named after its class, found "
            f"{loose[0]!r} outside ({len(loose)} in all); use the layout CLASS/IMAGE."
        )
    return {path: part[0] for path, part in below.items()}


def _wrapper_depth(parts: Sequence[tuple[str, ...]], split: str | None) -> int:
    depth = 0
    known = {*_SPLIT_NAMES, split}
    while True:
        first = parts[0][depth]
        # Two more levels must remain, a class and an image.
        if first in known or any(len(p) < depth + 3 or p[depth] != first for p in parts):
            return depth
        depth += 1
