from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tokenred.core.errors import DataError
from tokenred.data import zip_archive
from tokenred.data.zip_archive import ZipSource


@pytest.fixture
def source(make_tree: Callable[..., Path], tmp_path: Path) -> Iterator[ZipSource]:
    root = make_tree()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat/", "")
        for name in ("dog/0.png", "cat/1.png", "cat/0.png"):
            archive.write(root / name, name)
        archive.writestr("cat/readme.txt", "cats")
    opened = ZipSource(tmp_path / "a.zip")
    yield opened
    opened.close()


def test_names_are_sorted_images(source: ZipSource) -> None:
    assert source.names == ["cat/0.png", "cat/1.png", "dog/0.png"]
    assert source.image(2).getpixel((0, 0)) == (2, 0, 0)
    assert (len(source), source.name(1)) == (3, "cat/1.png")
    assert source.left_out == {".txt": 1}


def test_a_file_too_large_for_a_picture_is_not_unpacked(
    source: ZipSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_archive, "MOST_BYTES", 10)

    with pytest.raises(ValueError, match=r"unpacks to .* over 10"):
        source.image(0)


def test_an_encrypted_picture_cannot_be_read(tmp_path: Path, source: ZipSource) -> None:
    whole = bytearray(source.path.read_bytes())
    at = -1
    while (at := whole.find(b"PK\x01\x02", at + 1)) >= 0:  # the entries of the directory
        whole[at + 8] |= 1
    whole[6 + whole.index(b"PK\x03\x04", whole.index(b"cat/") + 4)] |= 1
    (tmp_path / "b.zip").write_bytes(whole)

    with pytest.raises(RuntimeError, match="encrypted"):
        ZipSource(tmp_path / "b.zip").image(2)


def test_it_pickles_after_use(source: ZipSource) -> None:
    source.image(0)
    copy = pickle.loads(pickle.dumps(source))

    assert copy.image(1).getpixel((0, 0)) == (1, 0, 0)
    copy.close()


def test_it_reads_again_after_closing(source: ZipSource) -> None:
    source.image(0)
    source.close()

    assert source.image(0).size == (8, 6)


def test_another_process_opens_its_own_handle(
    source: ZipSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = source._archive()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    theirs = source._archive()

    assert theirs is not mine
    assert source._archive() is theirs
    theirs.close()
    mine.close()


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04cut off"])
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.zip").write_bytes(content)

    with pytest.raises(DataError, match=r"readable zip file at .*bad\.zip"):
        ZipSource(tmp_path / "bad.zip")
