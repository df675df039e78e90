"""Anything with ``submit``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.analysis.study.stubs import StubRunner, tasks
from tokenred.analysis.study.cell import Outcome
from tokenred.analysis.study.engines.futures import Futures
from tokenred.analysis.study.errors import EngineError


def run(engine: Futures, count: int = 20, runner: StubRunner | None = None) -> list[Outcome]:
    stream = engine.run(runner or StubRunner(), tasks(count), set())
    return [outcome for outcomes in stream for outcome in outcomes]


@pytest.mark.parametrize("batch", [1, 7])
def test_an_executor_of_the_standard_library(batch: int) -> None:
    with ThreadPoolExecutor(3) as executor:
        found = run(Futures(executor, batch=batch), runner=StubRunner(raises=("key3",)))
    assert sorted(o.key for o in found) == sorted(f"key{i}" for i in range(20))
    assert {o.key: o.status for o in found}["key3"] == "failed"
    assert all(o.metrics["answer"] == int(o.key[3:]) ** 2 for o in found if o.status == "done")


class Job:
    """Like submitit's: no callback, and not done at first."""

    def __init__(self, function: Any, arguments: tuple[Any, ...]) -> None:
        self.call = lambda: function(*arguments)
        self.asked = 0
        self.patience = 2
        self.cancelled = False

    def done(self) -> bool:
        self.asked += 1
        return self.asked > self.patience

    def result(self) -> Any:
        return self.call()

    def cancel(self) -> None:
        self.cancelled = True


class Cluster:
    def __init__(self, bad: int = 0) -> None:
        self.jobs: list[Job] = []
        self.bad = bad

    def submit(self, function: Any, *arguments: Any) -> Job:
        self.jobs.append(Job(function, arguments))
        if len(self.jobs) <= self.bad:
            self.jobs[-1].call = self.fail
        return self.jobs[-1]

    def fail(self) -> None:
        raise RuntimeError("node lost")


def test_jobs_of_another_kind() -> None:
    cluster = Cluster()
    assert len(run(Futures(cluster, at_once=4))) == 20
    assert len(cluster.jobs) == 20


def test_no_two_calls_are_equal() -> None:
    """Dask gives the old result for an equal call, also where that was an error."""
    seen = []

    class Notes(Cluster):
        def submit(self, function: Any, *arguments: Any) -> Job:
            seen.append(arguments)
            return super().submit(function, *arguments)

    run(Futures(Notes(bad=2)), 1)
    assert len(seen) == len(set(seen)) == 3


def test_a_lost_node_is_made_up_for() -> None:
    found = run(Futures(Cluster(bad=2), retries=2), 5)
    assert [o.status for o in found] == ["done"] * 5
    assert sorted(o.attempts for o in found) == [1, 1, 1, 2, 2]
    bad = run(Futures(Cluster(bad=9), retries=2), 3)
    assert ["node lost" in o.error for o in bad] == [True] * 3


def test_an_executor_that_takes_no_more() -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(EngineError, match="takes no more work"):
        run(Futures(executor))


def test_stopping_cancels_what_waits() -> None:
    with ThreadPoolExecutor(1) as executor:
        engine = Futures(executor, at_once=5)
        stream = engine.run(StubRunner(seconds=0.05), tasks(50), set())
        next(stream)
        stream.close()


def test_stopping_cancels_jobs() -> None:
    class Uneven(Cluster):
        def submit(self, function: Any, *arguments: Any) -> Job:
            job = super().submit(function, *arguments)
            job.patience = len(self.jobs) ** 3
            return job

    cluster = Uneven()
    stream = Futures(cluster, at_once=5).run(StubRunner(), tasks(50), set())
    next(stream)
    stream.close()
    assert [job.cancelled for job in cluster.jobs] == [False, True, True, True, True]


def test_how_many_at_once() -> None:
    assert Futures(Cluster())._at_once == 64
    with ThreadPoolExecutor(3) as executor:
        assert Futures(executor)._at_once == 6


def test_a_task_that_cannot_travel_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenred.analysis.study.engines import futures

    def refuse(batch: Any) -> bytes:
        raise TypeError("cannot pickle this")

    monkeypatch.setattr(futures, "pack_tasks", refuse)
    found = run(Futures(Cluster()), 2)
    assert [o.error for o in found] == ["TypeError: cannot pickle this"] * 2
