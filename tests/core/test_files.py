from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tokenred.core.files import write_whole


@pytest.fixture(autouse=True, params=["nameless", "beside"])
def _where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "beside":  # as where the system has no nameless files
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)


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
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
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
