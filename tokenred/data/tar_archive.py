"""Images in a tar file, read in place.

timm's tar reader keeps one handle, which forked workers would share, merges all splits and reads
no compressed tar; so only positions are remembered here and each read opens the file anew.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import tarfile
import tempfile
import weakref
import zlib
from collections import Counter
from contextlib import ExitStack, nullcontext
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from PIL import Image

from tokenred.core.errors import DataError
from tokenred.data.layout import sort_out
from tokenred.data.sources import MOST_BYTES, decode

__all__ = ["TAR_SUFFIXES", "TarSource"]

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TAR_SUFFIXES = (".tar", *_COMPRESSED)
_KINDS = {
    tarfile.LNKTYPE: "link to nothing",
    tarfile.SYMTYPE: "link to nothing",
    tarfile.GNUTYPE_SPARSE: "sparse file",
    tarfile.REGTYPE: "sparse file",
}
_HOPS = 40  # as Linux follows links
_PIECE = 1 << 20
# Pictures do not shrink further than this; what does fills the disk and holds none.
_LARGEST, _STRONGEST = 1 << 30, 100


class TarSource:
    """The images of a tar file, in the order of their paths.

    A compressed tar cannot be read out of order, so it is unpacked once, to a temporary file that
    has no name: the system removes it with the last process that has it open, however that ends.

    Args:
        path: the ``.tar``, ``.tar.gz``, ``.tgz``, ``.tar.bz2`` or ``.tar.xz`` file.

    Attributes:
        names: paths of the images inside the archive. Links have the content of what they
            lead to.
        left_out: how many files are no images, by kind.

    Raises:
        DataError: if the file is no readable tar, or unpacks to over 1 GiB and 100 times its size.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unpacked: Any = None
        try:
            with self._opened() as file, tarfile.open(fileobj=file, mode="r:") as archive:
                self._places, others = _places(archive)
        except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise DataError(
                f"expected a readable tar file at {path}, got {error}; copy or pack it again."
            ) from error
        self.names, left_out = sort_out(self._places)
        self.left_out = dict(left_out + others)

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
        start, size = self._places[self.names[index]]
        if size > MOST_BYTES:
            raise ValueError(f"{size} bytes, over {MOST_BYTES}")
        with self._opened() as file:
            # By position: forked workers share the file, and with it where it is read.
            return os.pread(file.fileno(), size, start)

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
        most = max(_LARGEST, _STRONGEST * path.stat().st_size)
        with _decompressed(path) as packed:
            while piece := packed.read(_PIECE):
                file.write(piece)
                if file.tell() > most:
                    raise DataError(
                        f"expected pictures in {path}, but it unpacks to over {most} bytes; "
                        "unpack it yourself where it is right."
                    )
        file.seek(0)
        failed.pop_all()
    return file


def _places(archive: tarfile.TarFile) -> tuple[dict[str, tuple[int, int]], Counter[str]]:
    """Start and size of each file by its path, and the number of other things by kind."""
    places: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    others: Counter[str] = Counter()
    for member in archive:
        # A later member of the same path replaces an earlier one, as in unpacking.
        name = posixpath.normpath(member.name)
        target = posixpath.normpath(member.linkname)
        if member.issym():
            places.pop(name, None)
            links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        elif member.islnk() and target in places:
            places[name] = places[target]
        elif member.isreg() and not member.issparse():
            places[name] = member.offset_data, member.size
        elif not member.isdir():
            others[_KINDS.get(member.type, "FIFO or device")] += 1
    for name, target in links.items():
        if name in places:
            continue
        for _ in range(_HOPS):
            target = links.get(target, target)
        if target in places:
            places[name] = places[target]
        else:
            others[_KINDS[tarfile.SYMTYPE]] += 1
    return places, others


def _decompressed(path: Path) -> Any:
    name = path.name.lower()
    if name.endswith(".bz2"):
        return bz2.open(path)
    if name.endswith(".xz"):
        return lzma.open(path)
    return gzip.open(path)
