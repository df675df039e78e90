"""Images in a folder, read by timm's own folder reader."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image
from timm.data.readers.reader_image_folder import ReaderImageFolder

from tokenred.core.errors import DataError
from tokenred.data.layout import SPLIT_NAMES, is_image, pick_split
from tokenred.data.sources import decode

__all__ = ["FolderSource", "narrow_to_split"]


def narrow_to_split(root: Path, split: str | None) -> tuple[Path, str | None]:
    """Step into the split's folder, so that the others (a big train set) are not walked.

    Args:
        root: an image folder.
        split: which split to take; None for the preferred one.

    Returns:
        The folder to read, and the split still to be chosen in it.

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
        # The split may lie deeper, inside a wrapping folder; the layout decides.
        return root, split
    return (root, split) if chosen is None else (root / chosen, None)


class FolderSource:
    """The images below a folder, in natural order of their paths.

    Args:
        root: the folder; links are followed.

    Attributes:
        names: paths of the images, relative to the folder, with forward slashes.

    Raises:
        DataError: if the folder cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            reader = ReaderImageFolder(str(root))
        except RuntimeError:  # How timm says that there is no image.
            self.names: list[str] = []
            return
        except OSError as error:
            raise DataError(f"cannot read the folder {root} ({error}); check it.") from error
        names = (name.replace(os.sep, "/") for name in reader.filenames())
        self.names = [name for name in names if is_image(name)]

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.names)

    def name(self, index: int) -> str:
        """Return the path relative to the folder."""
        return self.names[index]

    def image(self, index: int) -> Image.Image:
        """Return the decoded RGB image."""
        return decode((self.root / self.names[index]).read_bytes())
