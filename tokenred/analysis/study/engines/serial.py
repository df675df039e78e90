"""In this process, one cell after the other."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tokenred.analysis.study.cell import Outcome, Task
from tokenred.analysis.study.engines.base import Engine, Run

__all__ = ["Serial"]


class Serial(Engine):
    """Runs cells in this process.

    Args:
        threads: CPU threads of PyTorch; None for no change.
    """

    name = "serial"

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads

    def run(self, runner: Run, tasks: Iterator[Task], modules: set[str]) -> Iterator[list[Outcome]]:
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads or before)
        try:
            for task in tasks:
                yield [runner(task)]
        finally:
            torch.set_num_threads(before)
