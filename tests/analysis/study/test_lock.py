"""One writer at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tokenred.analysis.study.errors import StoreError
from tokenred.analysis.study.lock import only_writer
from tokenred.analysis.study.store import Store


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


def test_the_second_writer_may_wait(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with only_writer(path, 0, ""):
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(20)
    threading.Timer(0.1, leave.set).start()
    with only_writer(path, 20, ""):
        assert leave.is_set()
    thread.join()


def test_an_error_lets_go(tmp_path: Path) -> None:
    def fail() -> None:
        with only_writer(tmp_path / "a.db", 0, ""):
            raise ValueError("mine")

    for _ in range(2):
        with pytest.raises(ValueError, match="mine"):
            fail()


def test_a_place_where_no_lock_can_be(tmp_path: Path) -> None:
    (tmp_path / "a.db.lock").mkdir()
    refused = pytest.raises(StoreError, match="cannot make the lock")
    with refused, only_writer(tmp_path / "a.db", 0, ""):
        pass


def test_memory_needs_no_lock() -> None:
    with Store() as store, store.writing(), store.writing():
        pass
