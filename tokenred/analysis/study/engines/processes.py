"""Worker processes on this machine, each with a fresh interpreter."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tokenred.analysis.study.cell import Outcome, Task
from tokenred.analysis.study.engines.base import Engine, Run, Tasks, usable_cores
from tokenred.analysis.study.engines.crew import Crew, Worker
from tokenred.analysis.study.errors import EngineError
from tokenred.analysis.study.payload import pack, pack_tasks
from tokenred.analysis.study.worker import failure

__all__ = ["Processes"]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_FALSE_STARTS = 3


class Processes(Engine):
    """Runs cells in processes of this machine.

    A worker that dies is replaced, and its cell is started again.

    Args:
        workers: processes; None for as many as there are cores.
        threads: CPU threads of PyTorch in each; None shares the cores out, unless
            ``OMP_NUM_THREADS`` says otherwise.
        retries: how often a cell may be started again after its worker died.
    """

    name = "processes"

    def __init__(
        self, workers: int | None = None, threads: int | None = None, retries: int = 2
    ) -> None:
        self._workers = workers or usable_cores()
        self._threads = threads
        self._retries = retries

    def run(self, runner: Run, tasks: Iterator[Task], modules: set[str]) -> Iterator[list[Outcome]]:
        todo = Tasks(tasks, self._retries)
        crew = Crew(pack(runner, modules), self._environment())
        try:
            for _ in range(self._workers):
                # No more workers than there are tasks.
                if not (first := todo.take()):
                    break
                crew.start(first)
            while crew.workers:
                outcomes: list[Outcome] = []
                for worker, found in crew.events():
                    outcomes += self._gone(crew, worker, todo) if found is None else found
                    if found is not None:
                        outcomes += self._go_on(crew, worker, todo)
                if outcomes:
                    yield todo.finished(outcomes)
        finally:
            crew.stop()

    def _go_on(self, crew: Crew, worker: Worker, todo: Tasks) -> list[Outcome]:
        """Give a worker its task; what cannot even be sent is an outcome already."""
        bad: list[Outcome] = []
        # A worker that has just started has its first one.
        worker.tasks = worker.tasks if worker.fresh else todo.take()
        worker.fresh = False
        while worker.tasks:
            try:
                content = pack_tasks(worker.tasks)
            except Exception as error:  # whatever a part's objects raise
                bad += [failure(task.key, error) for task in worker.tasks]
                worker.tasks = todo.take()
            else:
                crew.give(worker, content)
                return bad
        crew.dismiss(worker)
        return bad

    def _gone(self, crew: Crew, worker: Worker, todo: Tasks) -> list[Outcome]:
        """What follows from a worker's end."""
        how = crew.bury(worker)
        outcomes: list[Outcome] = []
        if worker.fresh:
            crew.false_starts += 1
            if crew.false_starts >= _FALSE_STARTS:
                raise EngineError(
                    f"{_FALSE_STARTS} worker processes ended before they were ready ({how}); what "
                    "they said is above. Can a new Python import tokenred and your modules?"
                )
            todo.put_back(worker.tasks)
        else:
            outcomes = todo.died(worker.tasks, how)
        # One that was told to leave is not replaced.
        if worker.tasks and (first := todo.take()):
            crew.start(first)
        return outcomes

    def _environment(self) -> dict[str, str]:
        if self._threads is None and any(name in os.environ for name in _THREADS):
            return {}
        share = self._threads or max(1, usable_cores() // self._workers)
        return dict.fromkeys(_THREADS, str(share))
