"""The life of a worker process, through its pipes."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.analysis.study.stubs import StubRunner, tasks
from tokenred.analysis.study.engines import process_worker
from tokenred.analysis.study.engines.frames import read_frame, write_frame
from tokenred.core.child import python_running

Process = subprocess.Popen[bytes]


class Noisy(StubRunner):
    """Prints, and asks for input."""

    def __call__(self, task: object) -> object:  # type: ignore[override]
        print("a word of the cell", flush=True)
        return sys.stdin.read()


@pytest.fixture
def worker() -> Iterator[Process]:
    process = subprocess.Popen(
        python_running(process_worker.__name__),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        yield process
        if process.poll() is None:
            process.kill()


def say(worker: Process, thing: object) -> None:
    assert worker.stdin is not None
    write_frame(worker.stdin, pickle.dumps(thing))


def hear(worker: Process) -> list[object]:
    assert worker.stdout is not None
    frame = read_frame(worker.stdout)
    assert frame is not None, "the worker has ended"
    found = pickle.loads(frame)
    assert isinstance(found, list)
    return found


def test_a_runner_then_tasks_until_the_pipe_closes(worker: Process) -> None:
    say(worker, StubRunner())
    assert hear(worker) == []  # ready
    first, second, third = tasks(3)
    say(worker, [first, second])
    assert [outcome.metrics["answer"] for outcome in hear(worker)] == [0, 1]  # type: ignore[attr-defined]
    say(worker, [third])
    assert [outcome.metrics["answer"] for outcome in hear(worker)] == [4]  # type: ignore[attr-defined]
    assert worker.stdin is not None
    worker.stdin.close()
    assert worker.wait(30) == 0


def test_what_a_cell_prints_does_not_get_between(worker: Process) -> None:
    say(worker, Noisy())
    assert hear(worker) == []
    say(worker, list(tasks(1)))
    assert hear(worker) == [""]  # its input is empty
    _, errors = worker.communicate(timeout=30)
    assert b"a word of the cell" in errors


def test_nothing_at_all(worker: Process) -> None:
    out, _ = worker.communicate(timeout=60)
    assert (out, worker.returncode) == (b"", 0)
