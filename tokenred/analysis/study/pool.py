"""Engines: in this process, or anything with ``submit`` whose workers may die.

Cells are sent as bytes; definitions from notebooks, scripts and the user's modules by value.
"""

from __future__ import annotations

import copy
import pickle
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from uuid import uuid4

import cloudpickle
import torch

from tokenred.analysis.measure.machine import cpu_threads
from tokenred.analysis.study.cell import Cell, EngineError, Outcome, failure, outcome
from tokenred.analysis.study.rows import FAILED
from tokenred.core.provenance import is_installed

Run = Callable[[Sequence[Cell]], Iterator[Outcome]]
"""What a worker does with cells: returns an outcome for each, in order, and never raises."""

_SHORTEST, _LONGEST = 0.002, 0.5
_AT_ONCE = 64
# The runner of a worker, with the models and images that it has loaded: one a thread, since a
# model cannot serve two cells at a time.
_here = threading.local()
_installed: dict[str, Parcel] = {}


class Parcel:
    """A value for a worker, packed once; a worker in a thread of this process gets the value.

    Unpickling a notebook's class here would copy its methods, which would no longer see later
    edits. The token tells equal parcels apart: Dask repeats the result of an equal call, also where
    that was an error.
    """

    def __init__(self, value: Any, packed: bytes, token: str = "") -> None:
        self.value, self.packed, self.token = value, packed, token or uuid4().hex

    def __reduce__(self) -> tuple[Any, ...]:
        return Parcel, (None, self.packed, self.token)

    def open(self) -> Any:
        """The value."""
        return pickle.loads(self.packed) if self.value is None else self.value


def own_modules() -> list[ModuleType]:
    """The user's modules: another machine may lack them, or they were edited since the import."""
    tops = {name.partition(".")[0] for name in sys.modules}
    # Classes of __main__ travel by value in any case.
    own = {top for top in tops if not is_installed(top)} - {"__main__"}
    return [
        module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in own and isinstance(module, ModuleType)
        if module.__name__ == name and not is_installed(name)
    ]


def packed(value: Any, modules: Sequence[ModuleType]) -> Parcel:
    """A parcel; definitions of these modules go by value if they can be copied, else by name."""
    known = cloudpickle.list_registry_pickle_by_value()
    fresh = [module for module in modules if module.__name__ not in known]
    try:
        for module in fresh:
            cloudpickle.register_pickle_by_value(module)
        return Parcel(value, cloudpickle.dumps(value, protocol=5))
    except Exception:  # whatever the objects of a module raise
        pass
    finally:
        for module in fresh:
            cloudpickle.unregister_pickle_by_value(module)
    return Parcel(value, cloudpickle.dumps(value, protocol=5))


def install(runner: Parcel) -> None:
    """Keep a runner for cells that name it by its token."""
    _installed[runner.token] = runner


def open_runner(runner: Parcel | str) -> Any:
    """The runner of this thread; given by its token if it was installed."""
    parcel = _installed[runner] if isinstance(runner, str) else runner
    if getattr(_here, "token", None) != parcel.token:
        try:
            own = parcel.open()
            _here.runner = own if parcel.value is None else copy.deepcopy(own)
        except Exception as error:
            raise EngineError(
                f"workers cannot unpickle their work ({type(error).__name__}: {error}); tokenred "
                "and your modules must be importable there."
            ) from error
        _here.token = parcel.token
    return _here.runner


def run_cell(runner: Parcel | str, cell: Parcel, threads: int | None = None) -> Outcome:
    """Run a cell in a worker, with so many CPU threads of PyTorch; None for no change."""
    run = open_runner(runner)
    if threads is not None:
        torch.set_num_threads(threads)
    found: Outcome = next(run([cell.open()]))
    return found


class Engine(ABC):
    """Runs cells somewhere; ``name`` is for the rows."""

    name: str

    @abstractmethod
    def run(self, runner: Run, cells: Sequence[Cell]) -> Iterator[list[Outcome]]:
        """Run cells with distinct keys, each to one outcome, in any order.

        Outcomes are yielded as soon as they are available. Closing the iterator stops the workers.

        Raises:
            EngineError: if the workers cannot be started.
        """


class Serial(Engine):
    """Runs cells in this process, one after the other, with so many CPU threads of PyTorch."""

    name = "serial"

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads

    def run(self, runner: Run, cells: Sequence[Cell]) -> Iterator[list[Outcome]]:
        with cpu_threads(self._threads):
            for found in runner(cells):
                yield [found]


@dataclass(eq=False)
class _Flight:
    """A submitted cell; ``alone`` if no other can have caused its end."""

    future: Any
    parcel: Parcel  # kept alive for workers in this process
    cell: Cell
    alone: bool


class Pool(Engine):
    """Runs cells wherever a subclass takes them, at most ``at_once`` at a time.

    A cell whose worker died is started again. After ``retries`` of those it is given up; only a
    death while it was running alone counts.
    """

    shared_fate = False  # whether all cells die with one worker

    def __init__(self, retries: int, at_once: int) -> None:
        self._retries, self._at_once = retries, at_once

    @abstractmethod
    def opened(self, runner: Parcel) -> AbstractContextManager[Callable[[Parcel], Any]]:
        """Workers, for the length of the block.

        What takes a cell returns something with ``done()``, ``result()`` and ``cancel()``.
        """

    def run(self, runner: Run, cells: Sequence[Cell]) -> Iterator[list[Outcome]]:
        if not cells:
            return
        waiting, suspects = deque(cells), deque[Cell]()
        flying: list[_Flight] = []
        starts, deaths = Counter[str](), Counter[str]()
        pause, own = _SHORTEST, own_modules()
        with self.opened(packed(runner, own)) as submit:
            try:
                while waiting or suspects or flying:
                    found: list[Outcome] = []
                    while (queue := suspects or waiting) and self._has_room(flying, suspects):
                        alone = not self.shared_fate or queue is suspects
                        cell = queue.popleft()
                        starts[cell.key] += 1
                        try:
                            parcel = packed(cell, own)
                        except Exception as error:  # whatever a part's objects raise
                            found.append(failure(cell.key, error))
                        else:
                            flying.append(_Flight(_sent(submit, parcel), parcel, cell, alone))
                    landed = [flight for flight in flying if flight.future.done()]
                    for flight in landed:
                        flying.remove(flight)
                        cell = flight.cell
                        try:
                            found.append(flight.future.result())
                        except EngineError:
                            raise
                        except Exception as error:  # the worker's end, as the executor tells it
                            deaths[cell.key] += flight.alone
                            if deaths[cell.key] <= self._retries:
                                suspects.append(cell)
                            else:
                                found.append(_died(cell, deaths[cell.key], error))
                    if found:
                        yield [{**each, "attempts": starts[each["key"]]} for each in found]
                    # Dask's futures and submitit's jobs have no common way to be waited for.
                    pause = _SHORTEST if landed else min(2 * pause, _LONGEST)
                    if flying and not landed:
                        time.sleep(pause)
            finally:
                for flight in flying:
                    flight.future.cancel()

    def _has_room(self, flying: Sequence[_Flight], suspects: Sequence[Cell]) -> bool:
        """A suspect runs without any other cell that would share its fate."""
        if self.shared_fate and flying and (suspects or flying[0].alone):
            return False
        return len(flying) < self._at_once


def _sent(submit: Callable[[Parcel], Any], parcel: Parcel) -> Any:
    try:
        return submit(parcel)
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(
            f"the executor accepts no more work ({type(error).__name__}: {error}). Start another "
            "one and the grid again; finished cells are kept."
        ) from error


def _died(cell: Cell, workers: int, error: Exception) -> Outcome:
    how = " ".join(f"{type(error).__name__}: {error}".split())
    told = (
        f"WorkerDied: {workers} workers died over this cell ({how}). A kill by signal 9 often "
        "means that memory ran out: fewer workers or smaller batches help."
    )
    return outcome(cell.key, FAILED, error=told)


class Executor(Pool):
    """Runs cells through an executor that the caller started and will close.

    It has ``submit(function, *arguments)``, which returns something with ``done()``, ``result()``
    and ``cancel()``: those of ``concurrent.futures``, Dask's client, submitit's. Twice its number
    of workers wait or run at a time, or 64 if that is unknown.
    """

    name = "executor"

    def __init__(self, executor: Any, retries: int = 2) -> None:
        workers = getattr(executor, "_max_workers", None)
        super().__init__(retries, 2 * workers if isinstance(workers, int) else _AT_ONCE)
        self._executor = executor

    @contextmanager
    def opened(self, runner: Parcel) -> Iterator[Callable[[Parcel], Any]]:
        yield lambda cell: self._executor.submit(run_cell, runner, cell)
