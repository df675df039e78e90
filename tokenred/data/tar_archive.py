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
from contextlib import ExitStack, nullcontext
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
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

    A compressed tar cannot be read out of order, so it is unpacked once, to a temporary file that
    has no name: the system removes it with the last process that has it open, however that ends.

    Args:
        path: the ``.tar``, ``.tar.gz``, ``.tgz``, ``.tar.bz2`` or ``.tar.xz`` file.

    Attributes:
        names: paths of the images inside the archive.

    Raises:
        DataError: if the file is no readable tar.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unpacked: Any = None
        try:
            with self._opened() as file, tarfile.open(fileobj=file, mode="r:") as archive:
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

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.names)

    def name(self, index: int) -> str:
        """Return the path inside the archive."""
        return self.names[index]

    def image(self, index: int) -> Image.Image:
        """Return the decoded RGB image."""
        start, size = self._places[self.names[index]]
        with self._opened() as file:
            # By position: forked workers share the file, and with it where it is read.
            return decode(os.pread(file.fileno(), size, start))

    def _opened(self) -> Any:
        """The tar file, within a context that leaves an unpacked one open."""
        if self.path.name.lower().endswith(".tar"):
            return self.path.open("rb")
        if self._unpacked is None:
            self._hold(_unpacked(self.path))
        return nullcontext(self._unpacked)

    def _hold(self, file: Any) -> None:
        self._unpacked = file
        weakref.finalize(self, file.close)

    def __getstate__(self) -> dict[str, Any]:
        """Give a worker that is being started the open file; any other copy unpacks for itself."""
        shared = self._unpacked is not None and get_spawning_popen() is not None
        return {**self.__dict__, "_unpacked": DupFd(self._unpacked.fileno()) if shared else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._unpacked is not None:
            self._hold(os.fdopen(self._unpacked.detach(), "rb"))


def _unpacked(path: Path) -> Any:
    with ExitStack() as failed:
        file = failed.enter_context(tempfile.TemporaryFile())
        with _decompressed(path) as packed:
            shutil.copyfileobj(packed, file, 1 << 20)
        file.seek(0)
        failed.pop_all()
    return file


def _decompressed(path: Path) -> Any:
    name = path.name.lower()
    if name.endswith(".bz2"):
        return bz2.open(path)
    if name.endswith(".xz"):
        return lzma.open(path)
    return gzip.open(path)
