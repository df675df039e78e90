"""What an engine is: something that runs tasks and hands back their outcomes."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from tokenred.analysis.study.cell import Outcome, Task

__all__ = ["Engine", "Run", "Serial", "usable_cores", "variables"]

Run = Callable[[Task], Outcome]


class Engine(ABC):
    """Runs tasks somewhere.

    Attributes:
        name: for the rows.
    """

    name: str

    @abstractmethod
    def run(self, runner: Run, tasks: Sequence[Task], modules: set[str]) -> Iterator[list[Outcome]]:
        """Run all tasks, each to one outcome, in any order.

        Outcomes are handed over as soon as they are there. Closing the iterator stops the workers.

        Args:
            runner: what a worker does with a task. It raises nothing.
            tasks: with keys of their own.
            modules: whose definitions the runner needs and a worker may lack.

        Raises:
            EngineError: where the workers cannot be started.
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
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads or before)
        try:
            for task in tasks:
                yield [runner(task)]
        finally:
            torch.set_num_threads(before)


def usable_cores() -> int:
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextmanager
def variables(given: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment for the length of the block, where they are not set already."""
    fresh = {name: value for name, value in given.items() if name not in os.environ}
    os.environ.update(fresh)
    try:
        yield
    finally:
        for name in fresh:
            os.environ.pop(name, None)
