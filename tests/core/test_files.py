"""Outputs are whole or not there, and never replaced by accident."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tokenred.core.errors import DataError, OutputExistsError
from tokenred.core.files import check_new, prepare_folder, write_atomically, write_whole


@pytest.fixture(params=["nameless", "beside"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "beside":  # as where the system has no nameless files
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)


@pytest.mark.usefixtures("where")
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half(place: Path) -> None:
        place.write_text("ne")
        raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        write_whole(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("where")
def test_has_the_rights_of_a_plain_file(tmp_path: Path) -> None:
    plain, whole = tmp_path / "plain", tmp_path / "whole"
    whole.write_text("an older one")
    plain.write_text("x")
    write_whole(whole, lambda place: place.write_text("x"))
    assert whole.stat().st_mode == plain.stat().st_mode
    assert whole.read_text() == "x"
    assert sorted(os.listdir(tmp_path)) == ["plain", "whole"]


PROGRAM = """
import sys, time
from pathlib import Path
from tokenred.core.files import write_whole

def slowly(place):
    place.write_bytes(bytes(1000))
    print("half", flush=True)
    time.sleep(60)

write_whole(Path(sys.argv[1]), slowly)
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="nameless files are Linux's")
@pytest.mark.parametrize("end", [signal.SIGKILL])
def test_a_kill_leaves_the_old_file_and_nothing_else(tmp_path: Path, end: signal.Signals) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", PROGRAM, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.send_signal(end)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_prepare(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    (path,) = prepare_folder(folder, ("x.csv",))
    assert path == folder / "x.csv"
    assert list(folder.iterdir()) == []
    write_atomically(path, b"1")
    with pytest.raises(OutputExistsError, match=r"Pass overwrite=True to replace it, or choose"):
        prepare_folder(folder, ("y.csv", "x.csv"))
    with pytest.raises(OutputExistsError, match="it, resume=True to continue the run"):
        prepare_folder(folder, ("x.csv",), resumable=True)
    prepare_folder(folder, ("y.csv",))
    prepare_folder(folder, ("x.csv",), overwrite=True)
    assert path.read_bytes() == b"1"


def test_half_a_character_is_written_out_and_no_folder_is_named(tmp_path: Path) -> None:
    written = write_atomically(tmp_path / "a.csv", "θ \udcff")
    assert written.read_text(encoding="utf-8") == r"θ \udcff"
    with pytest.raises(DataError, match="choose another path"):
        write_atomically(tmp_path / "missing" / "a.csv", "x")


def test_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputExistsError, match="file is a file"):
        prepare_folder(tmp_path / "file", ("x",), overwrite=True)
    with pytest.raises(OutputExistsError, match="got the folder"):
        check_new(tmp_path, overwrite=True)
    with pytest.raises(OutputExistsError, match="file is a file"):
        prepare_folder(tmp_path / "file" / "below", ("x",))
