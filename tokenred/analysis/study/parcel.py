"""Sending values to workers as bytes; definitions from notebooks and scripts are sent by value."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import cloudpickle

from tokenred.analysis.study.cell import EngineError, Outcome, Task
from tokenred.core.part import Part
from tokenred.core.provenance import is_installed

# The runner of a worker, with the models and images that it has loaded: one a thread, since a
# model cannot serve two cells at a time.
_here = threading.local()
_installed: dict[str, Parcel] = {}
_live: weakref.WeakValueDictionary[tuple[int, str], Parcel] = weakref.WeakValueDictionary()


class Parcel:
    """A value for a worker, packed once.

    A worker in a thread of this process gets the value itself: unpickling a notebook's class here
    would copy its methods, which would no longer see later edits.
    """

    def __init__(self, value: Any, packed: bytes, token: str = "") -> None:
        self.value = value
        self.packed = packed
        self.token = token or uuid4().hex
        if not token:
            _live[os.getpid(), self.token] = self

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (os.getpid(), self.token, self.packed)

    def open(self) -> Any:
        """The value."""
        return pickle.loads(self.packed) if self.value is None else self.value


def _received(process: int, token: str, packed: bytes) -> Parcel:
    # A process forked from the sender's has another number.
    own = _live.get((process, token)) if process == os.getpid() else None
    return Parcel(None, packed, token) if own is None else own


def pack_runner(runner: Any, modules: Iterable[str]) -> Parcel:
    """Pack a runner; definitions from these modules are sent by value.

    Such a module may be missing on another machine, or have been edited since it was imported. If a
    module cannot be copied by value, its name is sent.
    """
    return Parcel(runner, _pack(runner, modules))


def pack_tasks(tasks: Sequence[Task]) -> Parcel:
    """Pack a batch of tasks, with the user's own parts by value."""
    parts = [part for task in tasks for part in task.strategy.parts.values()]
    classes = {cls for part in parts for inner in _within(part) for cls in type(inner).__mro__}
    modules = {cls.__module__ for cls in classes if not is_installed(cls.__module__)}
    # Ten times faster if everything is installed.
    return Parcel(tasks, _pack(tasks, modules) if modules else pickle.dumps(tasks, protocol=5))


def _within(part: Part) -> Iterator[Part]:
    """A part, and the parts inside it."""
    yield part
    for field in dataclasses.fields(part):  # type: ignore[arg-type]
        value = getattr(part, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Part):
                yield from _within(item)


def install(runner: Parcel) -> None:
    """Keep a runner for batches that name it by its token."""
    _installed[runner.token] = runner


def run_batch(runner: Parcel | str, tasks: Parcel, threads: int | None = None) -> bytes:
    """Run a batch in a worker; the result is for `read_batch`.

    Args:
        runner: opened once for each thread; or the token of one that was installed.
        tasks: the batch.
        threads: CPU threads of PyTorch; None for no change.
    """
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
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    start = time.perf_counter()
    outcomes = list(_here.runner(tasks.open()))
    return pickle.dumps((outcomes, time.perf_counter() - start), protocol=5)


def read_batch(content: bytes) -> tuple[list[Outcome], float]:
    """The outcomes of a batch, and the seconds that they took."""
    outcomes, seconds = pickle.loads(content)
    return outcomes, seconds


def _pack(value: Any, modules: Iterable[str]) -> bytes:
    # Classes of __main__ travel by value in any case.
    own = [sys.modules[name] for name in modules if name in sys.modules and name != "__main__"]
    try:
        with _by_value(own):
            return bytes(cloudpickle.dumps(value, protocol=5))
    except Exception:  # whatever the objects of a module raise
        return bytes(cloudpickle.dumps(value, protocol=5))


@contextmanager
def _by_value(modules: list[Any]) -> Iterator[None]:
    registered = cloudpickle.list_registry_pickle_by_value()
    fresh = [module for module in modules if module.__name__ not in registered]
    for module in fresh:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in fresh:
            cloudpickle.unregister_pickle_by_value(module)
