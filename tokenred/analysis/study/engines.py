"""Engines by name: worker processes of this machine, and Ray."""

import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from loky import ProcessPoolExecutor, cpu_count
from tqdm import tqdm

from tokenred.analysis.study.cell import EngineError
from tokenred.analysis.study.pool import (
    Engine,
    Executor,
    Parcel,
    Pool,
    Serial,
    install,
    open_runner,
    run_cell,
)
from tokenred.core.errors import ConfigError, UnknownNameError, optional, shown
from tokenred.core.values import Count, Magnitude, Size, checked

ENGINES = ("serial", "processes", "ray")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_FALSE_STARTS = 3
_LOOK_SECONDS = 1.0
_OF_WORKERS = {
    # Nothing is imported from the working folder.
    "PYTHONSAFEPATH": "1",
    # What workers keep between cells is not a leak.
    "LOKY_MAX_MEMORY_LEAK_SIZE": str(2**62),
}
# Of a cluster that is started here: it tells nobody, and its workers count as much as others.
_OF_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


@checked
def pick_engine(
    given: str | Engine | Any,
    *,
    workers: Size | None = None,
    threads: Size | None = None,
    address: str | None = None,
    retries: Count = 2,
    gpus: Magnitude = 0.0,
) -> Engine:
    """The requested engine; arguments as in `tokenred.analysis.Grid.run`."""
    if address is not None and given != "ray":
        raise ConfigError(
            f"an address is for engine='ray', got engine={shown(given)}; leave it out."
        )
    if isinstance(given, Engine):
        return given
    if given == "serial":
        return Serial(threads)
    if given == "processes":
        return Processes(workers, threads, retries)
    if given == "ray":
        return Ray(workers, threads, address, retries, gpus)
    if callable(getattr(given, "submit", None)):
        return Executor(given, retries)
    if isinstance(given, str):
        raise UnknownNameError.of("engine", given, ENGINES)
    raise ConfigError(
        f"expected an engine: {', '.join(ENGINES)}, or an object with submit(), got {shown(given)}."
    )


class Processes(Pool):
    """Runs cells in processes on this machine (a loky pool); processes that die are replaced.

    Without ``threads``, the cores are divided among them, unless ``OMP_NUM_THREADS`` is set.
    """

    name = "processes"
    shared_fate = True  # a loky pool ends when any of its workers does

    def __init__(
        self, workers: int | None = None, threads: int | None = None, retries: int = 2
    ) -> None:
        self._workers = workers or cpu_count()
        self._environment = dict(_OF_WORKERS)
        if threads is not None or not any(name in os.environ for name in _THREADS):
            share = threads or max(1, cpu_count() // self._workers)
            self._environment |= dict.fromkeys(_THREADS, str(share))
        super().__init__(retries, 2 * self._workers)

    @contextmanager
    def opened(self, runner: Parcel) -> Iterator[Callable[[Parcel], Any]]:
        pool: list[Any] = []

        def submit(cell: Parcel) -> Any:
            if not pool or pool[0]._flags.broken is not None:
                pool[:] = [self._start(runner)]
            return pool[0].submit(run_cell, runner.token, cell)

        with _variables(_OF_WORKERS):
            try:
                yield submit
            finally:
                for each in pool:
                    each.shutdown(wait=True, kill_workers=True)

    def _start(self, runner: Parcel) -> Any:
        """A pool of which one worker has answered."""
        for tried in range(1, _FALSE_STARTS + 1):
            pool = ProcessPoolExecutor(
                self._workers, env=self._environment, initializer=_settle,
                initargs=(runner, os.getpid()),
            )  # fmt: skip
            try:
                pool.submit(_ready, runner.token).result()
            except BaseException as error:
                pool.shutdown(wait=True, kill_workers=True)
                if isinstance(error, EngineError) or not isinstance(error, Exception):
                    raise
                if tried == _FALSE_STARTS:
                    how = str(error).strip().partition("\n")[0]
                    raise EngineError(
                        f"worker processes ended {tried} times before they were ready ({how}); "
                        "their output is above. Can a new Python import tokenred and your modules?"
                    ) from error
            else:
                return pool
        raise AssertionError


def _settle(runner: Parcel, parent: int) -> None:
    """Set up a new process as a worker."""
    # Cells print to standard error. Ctrl-C reaches all processes of a terminal, but the parent
    # decides; a killed parent cannot announce its end.
    sys.stdout.flush()
    os.dup2(2, 1)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed worker would leak
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    install(runner)


def _ready(token: str) -> None:
    open_runner(token)


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


class Ray(Pool):
    """Runs cells as tasks of Ray.

    Without ``workers``, as many at a time as the cluster has cores for; ``gpus`` is a task's, and
    two tasks share one with 0.5. Uses the cluster that this process is connected to, if any.

    Raises:
        MissingExtraError: if Ray is not installed.
    """

    name = "ray"

    def __init__(
        self,
        workers: int | None = None,
        threads: int | None = None,
        address: str | None = None,
        retries: int = 2,
        gpus: float = 0,
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about itself and its own dependencies
            purpose = "the engine 'ray' needs Ray (engine='processes' does not)"
            self._ray = optional("ray", "ray", purpose)
        self._workers, self._threads = workers, threads or 1
        self._address, self._gpus = address, gpus
        super().__init__(retries, workers or 1)

    @contextmanager
    def opened(self, runner: Parcel) -> Iterator[Callable[[Parcel], Any]]:
        ray, own = self._ray, not self._ray.is_initialized()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about changes that Ray plans
            if own:
                self._connect()
            try:
                cores = int(ray.cluster_resources().get("CPU", 1))
                self._at_once = self._workers or max(1, cores // self._threads)
                # The pool itself starts them again.
                task = ray.remote(num_cpus=self._threads, num_gpus=self._gpus, max_retries=0)(
                    run_cell
                )
                setup = ray.put(runner)
                yield lambda cell: task.remote(setup, cell, self._threads).future()
            finally:
                if own:
                    ray.shutdown()

    def _connect(self) -> None:
        cores = max((self._workers or 1) * self._threads, cpu_count())
        local = {"num_cpus": cores, "include_dashboard": False}
        options: dict[str, Any] = {"address": self._address} if self._address else local
        try:
            with _variables({} if self._address else _OF_RAY):
                self._ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:
            place = self._address or "this machine"
            raise EngineError(
                f"cannot start or reach Ray on {place} ({type(error).__name__}: {error}); check "
                "the address, or choose engine='processes'."
            ) from error


@contextmanager
def _variables(given: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the length of the block, unless they are set already."""
    fresh = {name: value for name, value in given.items() if name not in os.environ}
    os.environ.update(fresh)
    try:
        yield
    finally:
        for name in fresh:
            os.environ.pop(name, None)
