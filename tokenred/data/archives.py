"""Images in a zip or tar file, read in place.

timm has no zip reader. Its tar reader keeps one handle, whose position forked workers would share;
it also merges all splits and cannot read compressed tars.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import struct
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from tokenred.core.errors import DataError
from tokenred.data.sources import FileSource, check_size

__all__ = ["TAR_SUFFIXES", "TarSource", "ZipSource"]

_COMPRESSED: dict[str, Callable[[Path], Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
TAR_SUFFIXES = (".tar", *_COMPRESSED)
_NO_TARGET = "link to nothing"
_KINDS = {
    tarfile.LNKTYPE: _NO_TARGET,
    tarfile.GNUTYPE_SPARSE: "sparse file",
    tarfile.REGTYPE: "sparse file",
}
_HOPS = 40  # as many links as Linux follows
_PIECE = 1 << 20
# Images do not compress further than this; a file that does would only fill the disk.
_LARGEST, _STRONGEST = 1 << 30, 100


class ZipSource(FileSource):
    """The images of a zip file.

    Args:
        path: the zip file.

    Raises:
        DataError: if the file is not a readable zip.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: tuple[int, zipfile.ZipFile] | None = None
        try:
            entries = self._archive().infolist()
        # A damaged directory makes zipfile raise nearly anything.
        except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, struct.error) as error:
            raise DataError(
                f"expected a readable zip file at {path}, got {error}; copy or create it again."
            ) from error
        super().__init__(entry.filename for entry in entries if not entry.is_dir())

    def read(self, name: str) -> bytes:
        entry = self._archive().getinfo(name)
        check_size(entry.file_size)  # zipfile never unpacks more than this says
        return self._archive().read(entry)

    def _archive(self) -> zipfile.ZipFile:
        # A handle shared with a fork would share its position too.
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), zipfile.ZipFile(self.path))
        return self._open[1]

    def __getstate__(self) -> dict[str, Any]:
        """Do not pickle the handle: the receiving process opens its own."""
        return {**self.__dict__, "_open": None}


class TarSource(FileSource):
    """The images of a tar file. A link has the content of its target.

    A compressed tar cannot be read out of order, so it is unpacked once, to an unnamed temporary
    file: the system removes it when the last process that uses it ends, even if it is killed.

    Args:
        path: the ``.tar``, ``.tar.gz``, ``.tgz``, ``.tar.bz2`` or ``.tar.xz`` file.

    Raises:
        DataError: if the file is not a readable tar, or unpacks to over 1 GiB and 100 times its
            size.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None
        try:
            with tarfile.open(fileobj=self._handle(), mode="r:") as archive:
                self._places, others = _places(archive)
        except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise DataError(
                f"expected a readable tar file at {path}, got {error}; copy or create it again."
            ) from error
        super().__init__(self._places, others)

    def read(self, name: str) -> bytes:
        start, size = self._places[name]
        check_size(size)
        # By position: forked workers share the file, and with it the read position.
        return os.pread(self._handle().fileno(), size, start)

    def _handle(self) -> Any:
        if self._file is None:
            self._hold(_opened(self.path))
        return self._file

    def _hold(self, file: Any) -> None:
        self._file = file
        weakref.finalize(self, file.close)

    def __getstate__(self) -> dict[str, Any]:
        """Pass the open file to a worker that is being started; any other copy opens its own."""
        shared = self._file is not None and get_spawning_popen() is not None
        return {**self.__dict__, "_file": DupFd(self._file.fileno()) if shared else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._file is not None:
            self._hold(os.fdopen(self._file.detach(), "rb"))


def _opened(path: Path) -> Any:
    """A tar file, unpacked if it is compressed."""
    compressed = [s for s in _COMPRESSED if path.name.lower().endswith(s)]
    if not compressed:
        return path.open("rb")
    most = max(_LARGEST, _STRONGEST * path.stat().st_size)
    with ExitStack() as failed:
        file = failed.enter_context(tempfile.TemporaryFile())
        with _COMPRESSED[compressed[0]](path) as packed:
            while piece := packed.read(_PIECE):
                file.write(piece)
                if file.tell() > most:
                    raise DataError(
                        f"expected images in {path}, but it unpacks to over {most} bytes; unpack "
                        "it yourself if that is correct."
                    )
        file.seek(0)
        failed.pop_all()
    return file


def _places(archive: tarfile.TarFile) -> tuple[dict[str, tuple[int, int]], Counter[str]]:
    """Offset and size of each file by path, and the number of other entries by kind."""
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
            others[_NO_TARGET] += 1
    return places, others
