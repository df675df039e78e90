"""Processes that are started, heard, given tasks, and buried."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator

import pytest

from tests.analysis.study.stubs import StubRunner, tasks
from tokenred.analysis.study.engines.crew import Crew, Worker, _ending
from tokenred.analysis.study.errors import EngineError


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    # However busy the machine is, a worker has the time to leave by itself.
    monkeypatch.setattr("tokenred.analysis.study.engines.crew._PATIENCE", 120.0)
    made = Crew(pickle.dumps(StubRunner()), {"OMP_NUM_THREADS": "1"})
    yield made
    made.stop()
    assert not made.workers


def test_ready_answers_and_farewell(crew: Crew) -> None:
    (task,) = tasks(1)
    crew.start([task])
    ((worker, ready),) = crew.events()
    assert (worker.tasks, ready) == ([task], [])
    crew.give(worker, pickle.dumps([task]))
    ((_, outcomes),) = crew.events()
    assert outcomes is not None
    assert [o.metrics["answer"] for o in outcomes] == [0]
    crew.dismiss(worker)
    ((gone, nothing),) = crew.events()
    assert gone is worker
    assert nothing is None
    assert crew.bury(worker) == "exit code 0"


def test_a_worker_that_is_killed_is_heard_of(crew: Crew) -> None:
    crew.start([])
    ((worker, _),) = crew.events()
    worker.process.kill()
    ((_, nothing),) = crew.events()
    assert nothing is None
    crew.give(worker, b"too late")  # its end is told by the event, and once
    assert crew.bury(worker) == "signal 9, SIGKILL"


def test_a_worker_that_cannot_be_started(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(EngineError, match="cannot start a worker process"):
        crew.start([])


def test_endings() -> None:
    assert _ending(3) == "exit code 3"
    assert _ending(-15) == "signal 15, SIGTERM"
    assert _ending(-100) == "signal 100"
    assert Worker.__hash__ is object.__hash__  # told apart by themselves
