"""Tasks as bytes that a worker can read: what notebooks and scripts define travels by value."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cloudpickle

from tokenred.analysis.study.cell import Task
from tokenred.analysis.study.fingerprints import parts_within
from tokenred.core.provenance import is_installed

__all__ = ["pack", "pack_tasks"]


def pack_tasks(tasks: Sequence[Task]) -> bytes:
    """Tasks for a worker; ``pickle.loads`` reads them."""
    parts = [part for task in tasks for part in task.strategy.parts.values()]
    classes = {type(inner) for part in parts for inner in parts_within(part)}
    modules = {own for cls in classes for own in _modules_of(cls)}
    if not modules:
        return pickle.dumps(tasks, protocol=5)  # ten times quicker
    return pack(tasks, modules)


def pack(value: Any, modules: Iterable[str] = ()) -> bytes:
    """Anything for a worker; what these modules define travels by value.

    Such a module may be missing on another machine, or have been edited since it was imported.
    Where no copy by value can be made, its name has to do.
    """
    with _by_value(modules):
        try:
            return bytes(cloudpickle.dumps(value, protocol=5))
        except Exception:  # whatever the objects of a module raise
            pass
    return bytes(cloudpickle.dumps(value, protocol=5))


def _modules_of(cls: type) -> set[str]:
    return {c.__module__ for c in cls.__mro__ if not is_installed(c.__module__)}


@contextmanager
def _by_value(modules: Iterable[str]) -> Iterator[None]:
    registered = cloudpickle.list_registry_pickle_by_value()
    # Classes of __main__ travel by value in any case.
    found = [sys.modules[m] for m in modules if m in sys.modules and m != "__main__"]
    fresh = [module for module in found if module.__name__ not in registered]
    for module in fresh:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in fresh:
            cloudpickle.unregister_pickle_by_value(module)
