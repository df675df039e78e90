"""Image sources: the images in a folder, a zip or a tar, read in place and decoded to RGB.

timm's readers do not do: that of folders follows circular links and blocks on a FIFO; that of tars
shares a read position between forked workers and merges the splits.
"""

import io
import os
import posixpath
import stat
import struct
import tarfile
import weakref
import zipfile
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from tokenred.core.errors import DataError
from tokenred.data.layout import HIDDEN, natural, other_kind

_MOST_BYTES = 1 << 28  # larger files, unpacked, are not images
_LONGEST = 100  # resizing the short side would make the long side this many times longer
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_WIDENED = ("PNG", "PPM")  # Pillow reads their 16 bits into 32
_NO_TARGET = "link to nothing"
_KINDS = {
    tarfile.LNKTYPE: _NO_TARGET,
    tarfile.GNUTYPE_SPARSE: "sparse file",
    tarfile.REGTYPE: "sparse file",
}
_HOPS = 40  # as many links as Linux follows


class ImageSource(Protocol):
    """A finite, ordered collection of images.

    A source must be picklable and stay usable after a fork: data-loader workers get a copy of it.
    If it has a method ``raw(index) -> bytes``, such as the content of a file, its images can be
    compared without decoding them.
    """

    def __len__(self) -> int:
        """Return how many images there are."""
        ...

    def name(self, index: int) -> str:
        """Return the image's name, for example its path inside an archive."""
        ...

    def image(self, index: int) -> Image.Image:
        """Return the decoded RGB image; any exception means that it is unreadable."""
        ...


def read_file(path: Path) -> bytes:
    """The content of a file; a `ValueError` for a FIFO, or a file too large to be an image."""
    with open(path, "rb", opener=_without_blocking) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("not a regular file")
        check_size(about.st_size)
        return file.read()


def _without_blocking(path: str, flags: int) -> int:
    # In case a FIFO has replaced the file.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def check_size(size: int) -> None:
    """Refuse a file of over 256 MiB with a `ValueError`: it is not an image."""
    if size > _MOST_BYTES:
        raise ValueError(f"{size} bytes, over {_MOST_BYTES}")


def decode(data: bytes) -> Image.Image:
    """Decode an image file to a fully loaded RGB image; a bad one raises whatever Pillow does."""
    with Image.open(io.BytesIO(data)) as image:
        short, long = sorted(image.size)
        if long > _LONGEST * short:
            raise ValueError(f"sides of {short} and {long}, more than {_LONGEST} times as long")
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB, as timm does: without its alpha channel.

    16-bit grey is scaled so that 65535 is white.
    """
    mode = image.mode
    if mode in _SIXTEEN_BITS or (mode == "I" and image.format in _WIDENED):
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if mode in ("I", "F"):
        raise ValueError(f"32-bit pixels (mode {mode}) have no defined white; store 8 or 16 bits")
    if mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def raw_of(source: ImageSource, index: int) -> bytes:
    """The content of an image: the source's own bytes, or the pixels."""
    raw = getattr(source, "raw", None)
    found: bytes = pixels_of(source.image(index)) if raw is None else raw(index)
    return found


def pixels_of(image: Image.Image) -> bytes:
    """Mode, size and pixels of an image."""
    return f"{image.mode} {image.size} ".encode() + image.tobytes()


# ---------------------------------------------------------------- files


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
    if name.endswith(".tar"):
        return TarSource(path)
    if name.endswith(".zip") or zipfile.is_zipfile(path):
        return ZipSource(path)
    raise DataError(
        f"expected an image folder, a .zip or a .tar, got the file {path}; name its folder, unpack "
        "it or pack it."
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
    """The images of a tar file, uncompressed. A link has the content of its target."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None
        try:
            with tarfile.open(fileobj=self._handle(), mode="r:") as archive:
                self._places, others = _places(archive)
        except (tarfile.TarError, OSError) as error:
            raise _unreadable("tar", path, error) from error
        super().__init__(self._places, others)

    def read(self, name: str) -> bytes:
        start, size = self._places[name]
        check_size(size)
        # By position: forked workers share the file, and with it the read position.
        return os.pread(self._handle().fileno(), size, start)

    def _handle(self) -> Any:
        if self._file is None:
            self._file = self.path.open("rb")
            weakref.finalize(self, self._file.close)
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        """Do not pickle the handle: the receiving process opens its own."""
        return {**self.__dict__, "_file": None}


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
