"""Anything with ``submit``: executors of ``concurrent.futures``, Dask's client, submitit's."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tokenred.analysis.study.cell import Outcome, Task
from tokenred.analysis.study.engines.base import Engine, Run, Tasks
from tokenred.analysis.study.engines.remote import at_hand, read_batch, run_batch
from tokenred.analysis.study.errors import EngineError
from tokenred.analysis.study.payload import pack, pack_tasks
from tokenred.analysis.study.worker import failure

__all__ = ["Futures"]

_SHORTEST, _LONGEST = 0.002, 0.5
_AT_ONCE = 64
# Of calls, for the whole process: two grids at a time never take each other's tasks.
_numbers = itertools.count(1)


@dataclass(eq=False)
class _Flight:
    """A future, the tasks that it is to run, and the number of the call."""

    future: Any
    batch: list[Task]
    number: int


class Futures(Engine):
    """Runs cells through an executor that somebody else started and will close.

    Args:
        executor: has ``submit(function, *arguments)``, which returns something with ``done()``
            and ``result()``.
        retries: how often a cell may be started again where its future raised.
        batch: cells of one submission; more than 1 for a cluster whose jobs take long to start.
        at_once: submissions that wait or run at a time; None for twice the executor's workers,
            or 64 where it does not say how many they are.
    """

    name = "executor"

    def __init__(
        self, executor: Any, retries: int = 2, batch: int = 1, at_once: int | None = None
    ) -> None:
        workers = getattr(executor, "_max_workers", None)
        self._executor = executor
        self._retries = retries
        self._batch = batch
        self._at_once = at_once or (2 * workers if isinstance(workers, int) else _AT_ONCE)

    def run(self, runner: Run, tasks: Iterator[Task], modules: set[str]) -> Iterator[list[Outcome]]:
        todo = Tasks(tasks, self._retries)
        packed = pack(runner, modules)
        digest = hashlib.sha256(packed).hexdigest()
        flying: list[_Flight] = []
        with at_hand(digest, runner) as sent:
            try:
                yield from self._fly((packed, digest), todo, flying, sent)
            finally:
                for flight in flying:
                    flight.future.cancel()

    def _fly(
        self, setup: tuple[bytes, str], todo: Tasks, flying: list[_Flight], sent: dict[int, Any]
    ) -> Iterator[list[Outcome]]:
        pause = _SHORTEST
        while True:
            outcomes: list[Outcome] = []
            while len(flying) < self._at_once and (batch := todo.take(self._batch)):
                outcomes += self._submit(setup, batch, flying, sent)
            landed = [flight for flight in flying if flight.future.done()]
            for flight in landed:
                flying.remove(flight)
                sent.pop(flight.number, None)
                outcomes += _collect(flight, todo)
            if outcomes:
                yield todo.finished(outcomes)
            elif not flying and not landed:
                return
            # Dask's futures and submitit's jobs have no common way to be waited for.
            pause = _SHORTEST if landed else min(2 * pause, _LONGEST)
            if flying and not landed:
                time.sleep(pause)

    def _submit(
        self,
        setup: tuple[bytes, str],
        batch: list[Task],
        flying: list[_Flight],
        sent: dict[int, Any],
    ) -> list[Outcome]:
        try:
            content = pack_tasks(batch)
        except Exception as error:  # whatever a part's objects raise
            return [failure(task.key, error) for task in batch]
        number = next(_numbers)
        sent[number] = batch
        try:
            future = self._executor.submit(run_batch, *setup, content, number)
        except Exception as error:
            raise EngineError(
                f"the executor takes no more work ({type(error).__name__}: {error}). Start "
                "another, and the grid again: finished cells are kept."
            ) from error
        flying.append(_Flight(future, batch, number))
        return []


def _collect(flight: _Flight, todo: Tasks) -> list[Outcome]:
    try:
        outcomes, _ = read_batch(flight.future.result())
    except Exception as error:  # the worker's end, or whatever the executor makes of it
        return todo.died(flight.batch, f"{type(error).__name__}: {error}")
    return outcomes
