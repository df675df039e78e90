"""Engines: in this process, or anything with ``submit`` whose workers may die."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tokenred.analysis.study.cell import FAILED, EngineError, Outcome, Task, failure
from tokenred.analysis.study.parcel import Parcel, pack_runner, pack_tasks, read_batch, run_batch

Run = Callable[[Sequence[Task]], Iterator[Outcome]]
"""What a worker does with tasks: returns an outcome for each, in order, and never raises."""
Submit = Callable[[Parcel], Any]
"""Takes a batch; returns something with ``done()``, ``result()`` and ``cancel()``."""

_SHORTEST, _LONGEST = 0.002, 0.5
_AT_ONCE = 64
# Target seconds per batch: a few long cells, or many short ones.
_SECONDS, _MOST = 1.0, 256


class Engine(ABC):
    """Runs tasks somewhere.

    Attributes:
        name: for the rows.
    """

    name: str

    @abstractmethod
    def run(self, runner: Run, tasks: Sequence[Task], modules: set[str]) -> Iterator[list[Outcome]]:
        """Run all tasks, each to one outcome, in any order.

        Outcomes are yielded as soon as they are available. Closing the iterator stops the workers.

        Args:
            runner: what a worker does with tasks.
            tasks: with distinct keys.
            modules: whose definitions the runner needs and a worker may lack.

        Raises:
            EngineError: if the workers cannot be started.
        """


class Serial(Engine):
    """Runs cells in this process, one after the other.

    Args:
        threads: CPU threads of PyTorch; None for no change.
    """

    name = "serial"

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads

    def run(self, runner: Run, tasks: Sequence[Task], modules: set[str]) -> Iterator[list[Outcome]]:
        from tokenred.analysis.measure.machine import cpu_threads  # imports timm

        with cpu_threads(self._threads):
            for outcome in runner(tasks):
                yield [outcome]


class Pool(Engine):
    """Runs batches wherever a subclass takes them.

    A batch whose worker died is restarted, task by task; a task that was running alone when its
    worker died too often is given up.

    Args:
        retries: how often a cell may be restarted after its worker died.
        at_once: number of batches that wait or run at a time.

    Attributes:
        shared_fate: whether all batches die with one worker.
        tries: how often the pool itself starts a batch before it gives it up.
    """

    shared_fate = False
    tries = 1

    def __init__(self, retries: int, at_once: int) -> None:
        self._retries = retries
        self._at_once = at_once

    @contextmanager
    def opened(self, runner: Parcel) -> Iterator[Submit]:
        """Workers, for the length of the block."""
        raise NotImplementedError

    def run(self, runner: Run, tasks: Sequence[Task], modules: set[str]) -> Iterator[list[Outcome]]:
        todo = _Todo(tasks, self._retries, self.shared_fate, self.tries)
        flying: list[_Flight] = []
        pause = _SHORTEST
        if not tasks:
            return
        with self.opened(pack_runner(runner, modules)) as submit:
            try:
                while True:
                    outcomes: list[Outcome] = []
                    while len(flying) < self._at_once and (batch := todo.take(flying)):
                        outcomes += _send(submit, batch, todo, flying)
                    landed = [flight for flight in flying if flight.future.done()]
                    for flight in landed:
                        flying.remove(flight)
                        outcomes += _collect(flight, todo)
                    if outcomes:
                        yield [replace(o, attempts=todo.starts.get(o.key, 1)) for o in outcomes]
                    elif not flying and not landed:
                        return
                    # Dask's futures and submitit's jobs have no common way to be waited for.
                    pause = _SHORTEST if landed else min(2 * pause, _LONGEST)
                    if flying and not landed:
                        time.sleep(pause)
            finally:
                for flight in flying:
                    flight.future.cancel()


@dataclass(eq=False)
class _Flight:
    """A submitted batch; ``alone`` if no other can have caused its end."""

    future: Any
    parcel: Parcel  # kept alive for workers in this process
    batch: list[Task]
    alone: bool


def _send(submit: Submit, batch: list[Task], todo: _Todo, flying: list[_Flight]) -> list[Outcome]:
    try:
        parcel = pack_tasks(batch)
    except Exception as error:  # whatever a part's objects raise
        return [failure(task.key, error) for task in batch]
    try:
        future = submit(parcel)
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(
            f"the executor accepts no more work ({type(error).__name__}: {error}). Start another "
            "one and the grid again; finished cells are kept."
        ) from error
    flying.append(_Flight(future, parcel, batch, todo.is_alone(batch)))
    return []


def _collect(flight: _Flight, todo: _Todo) -> list[Outcome]:
    try:
        outcomes, seconds = read_batch(flight.future.result())
    except EngineError:
        raise
    except Exception as error:  # the worker's end, or whatever the executor turns it into
        return todo.died(flight, error)
    todo.learn(len(outcomes), seconds)
    return outcomes


class _Todo:
    """The tasks still to be started, and those that were running when a worker died."""

    def __init__(self, tasks: Sequence[Task], retries: int, shared_fate: bool, tries: int) -> None:
        self.starts: dict[str, int] = {}
        self._retries, self._shared_fate, self._tries = retries, shared_fate, tries
        self._tasks = deque(tasks)
        self._suspects: deque[Task] = deque()
        self._deaths: dict[str, int] = {}
        self._size = 1

    def take(self, flying: Sequence[_Flight]) -> list[Task]:
        """The next batch; a suspect runs alone, without any other batch if they share a fate."""
        if self._shared_fate and flying and (self._suspects or self.is_alone(flying[0].batch)):
            return []
        if self._suspects:
            batch = [self._suspects.popleft()]
        else:
            count = min(self._size, len(self._tasks))
            batch = [self._tasks.popleft() for _ in range(count)]
        for task in batch:
            self.starts[task.key] = self.starts.get(task.key, 0) + 1
        return batch

    def is_alone(self, batch: list[Task]) -> bool:
        """Whether only this task can have caused the end of its worker."""
        first = self.starts[batch[0].key] == 1
        return len(batch) == 1 and not (self._shared_fate and first)

    def learn(self, tasks: int, seconds: float) -> None:
        """Record how long a batch took on its worker."""
        fitting = int(_SECONDS * tasks / max(seconds, 1e-6))
        # At most twice as many at a time, since the next ones may be slower.
        self._size = max(1, min(fitting, 2 * self._size, _MOST))

    def died(self, flight: _Flight, error: Exception) -> list[Outcome]:
        """Restart tasks whose worker died; the outcome, if that happened too often."""
        if not flight.alone:
            self._suspects.extend(flight.batch)
            return []
        (task,) = flight.batch
        self._deaths[task.key] = count = self._deaths.get(task.key, 0) + 1
        if count <= self._retries:
            self._suspects.append(task)
            return []
        how = " ".join(f"{type(error).__name__}: {error}".split())
        self.starts[task.key] *= self._tries
        told = (
            f"WorkerDied: {count * self._tries} workers died over this cell ({how}). A kill by "
            "signal 9 often means that memory ran out: fewer workers or smaller batches help."
        )
        return [Outcome(task.key, FAILED, error=told)]


class Executor(Pool):
    """Runs cells through an executor that the caller started and will close.

    Args:
        executor: has ``submit(function, *arguments)``, which returns something with ``done()``
            and ``result()``: executors of ``concurrent.futures``, Dask's client, submitit's.
        retries: how often a cell may be restarted after its future raised.
        at_once: number of submissions that wait or run at a time; None for twice the executor's
            workers, or 64 if their number is unknown.
    """

    name = "executor"

    def __init__(self, executor: Any, retries: int = 2, at_once: int | None = None) -> None:
        workers = getattr(executor, "_max_workers", None)
        fitting = 2 * workers if isinstance(workers, int) else _AT_ONCE
        super().__init__(retries, at_once or fitting)
        self._executor = executor

    @contextmanager
    def opened(self, runner: Parcel) -> Iterator[Submit]:
        yield lambda batch: self._executor.submit(run_batch, runner, batch)
