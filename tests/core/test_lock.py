"""One writer at a time."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tokenred.analysis.study.database import StoreError
from tokenred.analysis.study.store import Store
from tokenred.core.errors import DataError, OutputBusyError
from tokenred.core.lock import output_lock, process_lock


def test_the_second_writer_is_told_who_is_first(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Store(path) as first, Store(path) as second:
        with first.writing():
            told = r"another grid is writing .*process \d+ on"
            with pytest.raises(StoreError, match=told), second.writing():
                raise AssertionError("two writers")
            assert len(second) == 0  # reading goes on
        with second.writing():
            pass


def test_the_second_one_may_wait(tmp_path: Path) -> None:
    place = tmp_path / "lock"
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with process_lock(place, RuntimeError):
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(20)
    threading.Timer(0.1, leave.set).start()
    with process_lock(place, RuntimeError, wait=20):
        assert leave.is_set()
        assert place.exists()
    thread.join()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_output_has_one_writer_and_nothing_stays_behind(tmp_path: Path, kind: str) -> None:
    output = tmp_path if kind == "folder" else tmp_path / "page.html"

    def other() -> None:
        refused = pytest.raises(OutputBusyError, match=rf"process {os.getpid()} on .*, since")
        with refused, output_lock(output):
            raise AssertionError("two writers")

    with output_lock(output), ThreadPoolExecutor(1) as threads:
        with output_lock(output):  # as a command and the function that it calls
            pass
        threads.submit(other).result()
    assert list(tmp_path.iterdir()) == []


def test_an_error_lets_go(tmp_path: Path) -> None:
    def fail() -> None:
        with output_lock(tmp_path):
            raise ValueError("mine")

    for _ in range(2):
        with pytest.raises(ValueError, match="mine"):
            fail()


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tokenred.core.lock import output_lock\n"
        "with output_lock(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = str(Path(__file__).parents[2])
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=os.environ | {"PYTHONPATH": root}
    )
    assert killed.returncode == -signal.SIGKILL
    with output_lock(tmp_path):
        pass


def test_a_place_where_no_lock_can_be(tmp_path: Path) -> None:
    (tmp_path / ".tokenred.lock").mkdir()
    with pytest.raises(DataError, match="cannot make the lock"), output_lock(tmp_path):
        pass
    (tmp_path / "a.db.lock").mkdir()
    refused = pytest.raises(StoreError, match="cannot make the lock")
    with Store(tmp_path / "a.db") as store, refused, store.writing():
        pass
