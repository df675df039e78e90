"""Images in a tar file, read in place.

timm's tar reader keeps one handle, which forked workers would share, merges all splits and reads
no compressed tar; so only positions are remembered here and each read opens the file anew.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
import weakref
import zlib
from pathlib import Path
from typing import Any

from PIL import Image

from tokenred.core.errors import DataError
from tokenred.data.layout import is_image
from tokenred.data.sources import decode

__all__ = ["TAR_SUFFIXES", "TarSource"]

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TAR_SUFFIXES = (".tar", *_COMPRESSED)


class TarSource:
    """The images of a tar file, in the order of their paths.

    A compressed tar cannot be read out of order, so it is unpacked to a temporary tar file
    once, which goes with this object.

    Args:
        path: the ``.tar``, ``.tar.gz``, ``.tgz``, ``.tar.bz2`` or ``.tar.xz`` file.

    Attributes:
        names: paths of the images inside the archive.

    Raises:
        DataError: if the file is no readable tar.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cleanup: Any = None
        try:
            self._plain = path if path.name.lower().endswith(".tar") else self._unpack(path)
            with tarfile.open(self._plain, "r:") as archive:
                members = [
                    (member.name.removeprefix("./"), member.offset_data, member.size)
                    for member in archive
                    if member.isreg() and is_image(member.name.removeprefix("./"))
                ]
        except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise DataError(
                f"expected a readable tar file at {path}, got {error}; copy or pack it again."
            ) from error
        # A later member of the same path replaces an earlier one, as in unpacking.
        self._places = {name: (start, size) for name, start, size in members}
        self.names = sorted(self._places)

    def _unpack(self, path: Path) -> Path:
        folder = tempfile.mkdtemp(prefix="tokenred-")
        self._cleanup = weakref.finalize(self, _remove, folder, os.getpid())
        plain = Path(folder) / "images.tar"
        with _decompressed(path) as packed, plain.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 1 << 20)
        return plain

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.names)

    def name(self, index: int) -> str:
        """Return the path inside the archive."""
        return self.names[index]

    def image(self, index: int) -> Image.Image:
        """Return the decoded RGB image."""
        start, size = self._places[self.names[index]]
        with self._plain.open("rb") as file:
            file.seek(start)
            return decode(file.read(size))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the duty to clean up with the process that unpacked."""
        return {**self.__dict__, "_cleanup": None}


def _decompressed(path: Path) -> Any:
    name = path.name.lower()
    if name.endswith(".bz2"):
        return bz2.open(path)
    if name.endswith(".xz"):
        return lzma.open(path)
    return gzip.open(path)


def _remove(folder: str, owner: int) -> None:
    # A forked worker inherits the finaliser but not the duty.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
