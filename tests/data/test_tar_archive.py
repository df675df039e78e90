from __future__ import annotations

import gc
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tokenred.core.errors import DataError
from tokenred.data import tar_archive
from tokenred.data.tar_archive import TarSource


@pytest.fixture
def packed(make_tree: Callable[..., Path], tmp_path: Path) -> Callable[[str], Path]:
    root = make_tree()

    def pack(suffix: str) -> Path:
        path = tmp_path / f"a{suffix}"
        mode = {".tar": "w", ".tar.gz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}[suffix]
        with tarfile.open(path, mode) as archive:
            archive.add(root, ".")
        return path

    return pack


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_images_are_read_in_any_order_and_after_pickling(
    packed: Callable[[str], Path], suffix: str
) -> None:
    source = TarSource(packed(suffix))
    copy = pickle.loads(pickle.dumps(source))

    assert source.names == ["cat/0.png", "cat/1.png", "dog/0.png"]
    for index in (2, 0, 1):
        assert source.image(index).getpixel((0, 0)) == (index, 0, 0)
        assert copy.image(index).getpixel((0, 0)) == (index, 0, 0)
    assert (len(source), source.name(2)) == (3, "dog/0.png")


def test_the_unpacked_copy_goes_with_the_source(packed: Callable[[str], Path]) -> None:
    source = TarSource(packed(".tar.gz"))
    copy = pickle.loads(pickle.dumps(source))
    plain = source._plain
    assert plain.exists()

    del copy
    gc.collect()
    assert plain.exists()

    del source
    gc.collect()
    assert not plain.parent.exists()


def test_a_forked_worker_does_not_clean_up(tmp_path: Path) -> None:
    tar_archive._remove(str(tmp_path), os.getpid() + 1)

    assert tmp_path.exists()


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_what_is_no_tar_is_refused(packed: Callable[[str], Path], suffix: str, damage: str) -> None:
    path = packed(suffix)
    whole = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "text": b"no tar" * 200, "cut": whole[: len(whole) // 3]}[damage]
    )

    with pytest.raises(DataError, match="readable tar file at"):
        TarSource(path)
