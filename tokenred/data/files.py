"""Images in a folder, a zip or a tar, read in place.

timm's readers do not do: that of folders follows circular links and blocks on a FIFO; that of tars
shares a read position between forked workers, merges the splits and reads no compressed tars.
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
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from PIL import Image

from tokenred.core.errors import DataError
from tokenred.data.layout import HIDDEN, natural, other_kind
from tokenred.data.sources import check_size, decode, read_file

_COMPRESSED: dict[str, Callable[[Path], Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
_TAR_SUFFIXES = (".tar", *_COMPRESSED)
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


class FileSource:
    """The images among the files of a folder or an archive; a subclass says how to `read` one.

    Attributes:
        names: paths of the images in natural order; shorten the list to use only some of them.
        left_out: number of files and other entries that are not images, by kind.
    """

    def __init__(self, paths: Iterable[str], others: Mapping[str, int] | None = None) -> None:
        kinds = {path: other_kind(path) for path in paths}
        self.names = sorted((path for path, kind in kinds.items() if not kind), key=natural)
        self.left_out = dict(Counter(filter(None, kinds.values())) + Counter(others or {}))

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def raw(self, index: int) -> bytes:
        return self.read(self.names[index])

    def image(self, index: int) -> Image.Image:
        return decode(self.raw(index))

    def read(self, name: str) -> bytes:
        """Return the content of the file with this path."""
        raise NotImplementedError


def source_at(path: Path) -> FileSource:
    """The images of a folder or an archive, or a `DataError`."""
    name = path.name.lower()
    if path.is_dir():
        return FolderSource(path)
    if name.endswith(_TAR_SUFFIXES):
        return TarSource(path)
    if name.endswith(".zip") or zipfile.is_zipfile(path):
        return ZipSource(path)
    raise DataError(
        f"expected an image folder, a .zip or one of {', '.join(_TAR_SUFFIXES)}, got the file "
        f"{path}; name its folder or pack it."
    )


def _unreadable(kind: str, path: Path, error: Exception) -> DataError:
    return DataError(
        f"expected a readable {kind} file at {path}, got {error}; copy or create it again."
    )


# ---------------------------------------------------------------- folders


class FolderSource(FileSource):
    """The images below a folder; see `walk`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            super().__init__(*walk(root))
        except OSError as error:
            raise DataError(f"cannot read the folder {root} ({error}); check it.") from error

    def read(self, name: str) -> bytes:
        return read_file(self.root / name)


def walk(root: Path) -> tuple[list[str], Counter[str]]:
    """Paths of the regular files below a folder, and the number of other entries by kind.

    Links are followed, but each folder is read once: in its own place if it lies below ``root``,
    otherwise at the first link to it.
    """
    files: list[str] = []
    others: Counter[str] = Counter()
    # A link to one of the folder's parents leads back here.
    seen = {_identity(place.stat()) for place in root.resolve(strict=True).parents}
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
            try:
                if entry.is_file():
                    files.append(below)
                elif not entry.is_dir():
                    os.stat(entry)
                    others["FIFO, socket or device"] += 1
                elif other_kind(below) == HIDDEN:
                    others[HIDDEN] += 1
                else:
                    (links if entry.is_symlink() else waiting).append(below)
            except OSError:  # a broken or circular link, or one without permission
                others[_NO_TARGET] += 1
    return files, others


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


# ---------------------------------------------------------------- archives


class ZipSource(FileSource):
    """The images of a zip file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: tuple[int, zipfile.ZipFile] | None = None
        try:
            entries = self._archive().infolist()
        # A damaged directory makes zipfile raise nearly anything.
        except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, struct.error) as error:
            raise _unreadable("zip", path, error) from error
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
    file: the system removes it when the last process that uses it ends, even if it is killed. One
    that unpacks to over 1 GiB and 100 times its size is refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None
        try:
            with tarfile.open(fileobj=self._handle(), mode="r:") as archive:
                self._places, others = _places(archive)
        except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise _unreadable("tar", path, error) from error
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
    unpack = next((f for s, f in _COMPRESSED.items() if path.name.lower().endswith(s)), None)
    if unpack is None:
        return path.open("rb")
    most = max(_LARGEST, _STRONGEST * path.stat().st_size)
    with ExitStack() as failed:
        file = failed.enter_context(tempfile.TemporaryFile())
        with unpack(path) as packed:
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
