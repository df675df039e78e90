from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def _colour(source: TarSource, index: int, answers: Any) -> None:
    answers.put((source.image(index).getpixel((0, 0)), source._unpacked is not None))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_share_the_unpacked_file(packed: Callable[[str], Path], method: str) -> None:
    path = packed(".tar.gz")
    source = TarSource(path)
    path.unlink()  # so that nobody can unpack it again
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    worker = context.Process(target=_colour, args=(source, 2, answers))
    worker.start()
    assert answers.get() == ((2, 0, 0), True)
    worker.join()
    assert source.image(1).getpixel((0, 0)) == (1, 0, 0)


PROGRAM = """
import sys, time
from pathlib import Path
from tokenred.data import tar_archive
from tokenred.data.tar_archive import TarSource
source = TarSource(Path(sys.argv[1]))
print(len(source), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_unpacked_stays_behind(
    packed: Callable[[str], Path], tmp_path: Path, end: signal.Signals
) -> None:
    (tmp_path / "scratch").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(packed(".tar.gz"))],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path / "scratch")},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"3\n"
        process.send_signal(end)
    assert os.listdir(tmp_path / "scratch") == []


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


def test_links_have_the_content_of_what_they_lead_to(
    make_tree: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_tree(["a/0.png", "b/0.png"])
    (root / "b/hard.png").hardlink_to(root / "a/0.png")
    (root / "a/soft.png").symlink_to("../b/0.png")
    (root / "a/soft2.png").symlink_to("soft.png")
    (root / "a/circle.png").symlink_to("circle.png")
    (root / "a/lost.png").symlink_to("nowhere.png")
    os.mkfifo(root / "a/fifo.png")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(root, ".")

    source = TarSource(tmp_path / "a.tar")
    colours = {name: source.image(i).getpixel((0, 0)) for i, name in enumerate(source.names)}

    red = dict.fromkeys(["a/soft.png", "a/soft2.png", "b/0.png"], (1, 0, 0))
    assert colours == red | dict.fromkeys(["a/0.png", "b/hard.png"], (0, 0, 0))
    assert source.left_out == {"link to nothing": 2, "FIFO or device": 1}


def test_a_bomb_is_refused_before_it_fills_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_archive, "_LARGEST", 1 << 20)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("a/0.png")
        info.size = 8 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))

    with pytest.raises(DataError, match="unpacks to over"):
        TarSource(tmp_path / "a.tar.gz")


def test_a_file_too_large_for_a_picture_is_not_read(
    packed: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = TarSource(packed(".tar"))
    monkeypatch.setattr(tar_archive, "MOST_BYTES", 10)

    with pytest.raises(ValueError, match="bytes, over 10"):
        source.image(0)
