"""Images in a zip file, read in place (timm has no reader for zip)."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image

from tokenred.core.errors import DataError
from tokenred.data.layout import sort_out
from tokenred.data.sources import MOST_BYTES, decode

__all__ = ["ZipSource"]


class ZipSource:
    """The images of a zip file, in the order of their paths.

    Each process opens the file itself, at its first image: a handle shared after a fork would
    share its position too, and would not pickle.

    Args:
        path: the zip file.

    Attributes:
        names: paths of the images inside the archive.
        left_out: how many files are no images, by kind.

    Raises:
        DataError: if the file is no readable zip.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: tuple[int, zipfile.ZipFile] | None = None
        try:
            with zipfile.ZipFile(path) as archive:
                paths = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        # A damaged directory makes zipfile raise nearly anything.
        except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, struct.error) as error:
            raise DataError(
                f"expected a readable zip file at {path}, got {error}; copy or pack it again."
            ) from error
        self.names, others = sort_out(paths)
        self.left_out = dict(others)

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.names)

    def name(self, index: int) -> str:
        """Return the path inside the archive."""
        return self.names[index]

    def image(self, index: int) -> Image.Image:
        """Return the decoded RGB image."""
        return decode(self.raw(index))

    def raw(self, index: int) -> bytes:
        """Return the file's content."""
        entry = self._archive().getinfo(self.names[index])
        if entry.file_size > MOST_BYTES:  # zipfile never unpacks more than this says
            raise ValueError(f"unpacks to {entry.file_size} bytes, over {MOST_BYTES}")
        return self._archive().read(entry)

    def close(self) -> None:
        """Close this process's handle; the next image opens the file again."""
        if self._open is not None and self._open[0] == os.getpid():
            self._open[1].close()
        self._open = None

    def _archive(self) -> zipfile.ZipFile:
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), zipfile.ZipFile(self.path))
        return self._open[1]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the handle behind: the receiving process opens its own."""
        return {**self.__dict__, "_open": None}
