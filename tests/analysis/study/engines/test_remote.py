"""Bytes in, bytes out."""

from __future__ import annotations

import pickle
import threading
from typing import Any

from tokenred.analysis.study.engines.remote import read_batch, run_batch

OPENED: list[str] = []


class Runner:
    """Says which thread opened it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        OPENED.append(self.name)

    def __call__(self, task: int) -> str:
        return f"{self.name}{task}"


def run(runner: Runner, tasks: list[int]) -> list[Any]:
    packed = pickle.dumps(runner)
    outcomes, seconds = read_batch(run_batch(packed, runner.name, pickle.dumps(tasks), 3))
    assert seconds >= 0
    return outcomes


def test_a_runner_is_opened_once_a_thread() -> None:
    OPENED.clear()
    one, two = Runner("one"), Runner("two")
    assert run(one, [1, 2]) == ["one1", "one2"]
    assert run(one, []) == []
    assert OPENED == ["one"]
    assert run(two, [5]) == ["two5"]
    assert run(one, [6]) == ["one6"]
    assert OPENED == ["one", "two", "one"]
    thread = threading.Thread(target=run, args=(one, [7]))
    thread.start()
    thread.join()
    # A model cannot serve two cells at a time.
    assert OPENED == ["one", "two", "one", "one"]
