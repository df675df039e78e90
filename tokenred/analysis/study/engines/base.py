"""What an engine is: something that runs tasks and hands back their outcomes."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from tokenred.analysis.study.cell import FAILED, Outcome, Task

__all__ = ["Engine", "Run", "Tasks", "usable_cores"]

Run = Callable[[Task], Outcome]


class Engine(ABC):
    """Runs tasks somewhere.

    Attributes:
        name: for the rows.
    """

    name: str

    @abstractmethod
    def run(self, runner: Run, tasks: Iterator[Task], modules: set[str]) -> Iterator[list[Outcome]]:
        """Run all tasks, each to one outcome, in any order.

        Tasks are taken one by one as there is room for them, so that there may be many. Outcomes
        are handed over as soon as they are there. Closing the iterator stops the workers.

        Args:
            runner: what a worker does with a task. It raises nothing.
            tasks: with keys of their own.
            modules: whose definitions the runner needs and a worker may lack.

        Raises:
            EngineError: where the workers cannot be started.
        """


class Tasks:
    """The tasks still to be started, those of dead workers first.

    Args:
        tasks: all of them.
        retries: how often one may be started again.
    """

    def __init__(self, tasks: Iterator[Task], retries: int) -> None:
        self._tasks = tasks
        self._retries = retries
        self._again: deque[Task] = deque()
        self._deaths: dict[str, int] = {}

    def take(self, most: int = 1) -> list[Task]:
        """The next tasks, at most so many; one over which a worker died comes alone."""
        found: list[Task] = []
        while len(found) < most:
            task = self._again.popleft() if self._again else next(self._tasks, None)
            if task is None:
                break
            if task.key in self._deaths:
                if found:
                    self._again.appendleft(task)
                else:
                    found.append(task)
                break
            found.append(task)
        return found

    def put_back(self, tasks: list[Task]) -> None:
        """Start tasks again that were not begun."""
        self._again.extend(tasks)

    def died(self, tasks: list[Task], how: str) -> list[Outcome]:
        """Start tasks again over which a worker died; the outcome, where that was once too often.

        Which of several it was is not known, so that none of them is given up.

        Args:
            tasks: that were running.
            how: the worker died.
        """
        given_up = []
        for task in tasks:
            count = self._deaths.get(task.key, 0) + 1
            if count <= self._retries or len(tasks) > 1:
                self._deaths[task.key] = count
                self._again.append(task)
                continue
            self._deaths.pop(task.key, None)
            error = (
                f"WorkerDied: {count} workers died over this cell ({how}). A kill by signal 9 "
                "often means that memory ran out: fewer workers or smaller batches help."
            )
            given_up.append(Outcome(task.key, FAILED, error=error, attempts=count))
        return given_up

    def finished(self, outcomes: list[Outcome]) -> list[Outcome]:
        """The outcomes, with the number of times that each was started."""
        return [
            replace(outcome, attempts=self._deaths.pop(outcome.key, 0) + outcome.attempts)
            for outcome in outcomes
        ]


def usable_cores() -> int:
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
