"""Worker processes on this machine, each with a fresh interpreter: a pool of loky's."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loky import ProcessPoolExecutor

from tokenred.analysis.study.cell import EngineError
from tokenred.analysis.study.engines.base import usable_cores, variables
from tokenred.analysis.study.engines.parcel import Parcel, install, pack_tasks, run_batch
from tokenred.analysis.study.engines.pool import Pool, Submit

__all__ = ["Processes"]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_FALSE_STARTS = 3
_LOOK_SECONDS = 1.0
_ALL = {
    # From the working folder nothing is imported.
    "PYTHONSAFEPATH": "1",
    # What workers keep between cells is no leak.
    "LOKY_MAX_MEMORY_LEAK_SIZE": str(2**62),
}


class Processes(Pool):
    """Runs cells in processes of this machine; those that die are replaced.

    Args:
        workers: processes; None for as many as there are cores.
        threads: CPU threads of PyTorch in each; None shares the cores out, unless
            ``OMP_NUM_THREADS`` says otherwise.
        retries: how often a cell may be started again after its worker died.
    """

    name = "processes"
    # A pool of loky's ends with any of its workers.
    shared_fate = True

    def __init__(
        self, workers: int | None = None, threads: int | None = None, retries: int = 2
    ) -> None:
        self._workers = workers or usable_cores()
        self._threads = threads
        super().__init__(retries, 2 * self._workers)

    @contextmanager
    def opened(self, runner: Parcel) -> Iterator[Submit]:
        pool: list[Any] = []

        def submit(batch: Parcel) -> Any:
            if not pool or pool[0]._flags.broken is not None:
                pool[:] = [self._start(runner)]
            return pool[0].submit(run_batch, runner.token, batch)

        with variables(_ALL):
            try:
                yield submit
            finally:
                for each in pool:
                    each.shutdown(wait=True, kill_workers=True)

    def _start(self, runner: Parcel) -> Any:
        """A pool, one worker of which has answered."""
        for tried in range(1, _FALSE_STARTS + 1):
            pool = ProcessPoolExecutor(
                self._workers, env=self._environment(), initializer=_settle,
                initargs=(runner, os.getpid()),
            )  # fmt: skip
            try:
                pool.submit(run_batch, runner.token, pack_tasks([])).result()
            except BaseException as error:
                pool.shutdown(wait=True, kill_workers=True)
                if isinstance(error, EngineError) or not isinstance(error, Exception):
                    raise
                if tried == _FALSE_STARTS:
                    how = str(error).strip().partition("\n")[0]
                    raise EngineError(
                        f"worker processes ended {tried} times before they were ready ({how}); "
                        "what they said is above. Can a new Python import tokenred and your "
                        "modules?"
                    ) from error
            else:
                return pool
        raise AssertionError

    def _environment(self) -> dict[str, str]:
        if self._threads is None and any(name in os.environ for name in _THREADS):
            return dict(_ALL)
        share = self._threads or max(1, usable_cores() // self._workers)
        return _ALL | dict.fromkeys(_THREADS, str(share))


def _settle(runner: Parcel, parent: int) -> None:
    """Make a new process a worker."""
    # What cells print goes to standard error; Ctrl-C reaches all processes of a terminal, and the
    # parent decides; a parent that was killed cannot say so.
    sys.stdout.flush()
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    install(runner)


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)
