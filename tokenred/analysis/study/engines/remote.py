"""What runs on the other side of an executor or a cluster: bytes in, bytes out."""

from __future__ import annotations

import copy
import os
import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["at_hand", "read_batch", "run_batch"]

# The runner of a worker, with the models and images that it has loaded: one a thread, since a
# model cannot serve two cells at a time.
_here = threading.local()
# What this process sent, for workers that are threads of its own: reading a notebook's class back
# here would give the class itself copies of its methods, which no longer see what is edited.
_sent: dict[tuple[Any, ...], Any] = {}


@contextmanager
def at_hand(digest: str, runner: Any) -> Iterator[dict[int, Any]]:
    """Spare this process's own threads the reading of what they are sent.

    Args:
        digest: of the packed runner.
        runner: itself.

    Yields:
        A place for the tasks of each call, by its number.
    """
    tasks: dict[int, Any] = {}
    key = (os.getpid(), digest)
    before = _sent.get(key)
    _sent[key] = (runner, tasks)
    try:
        yield tasks
    finally:
        if before is None:
            del _sent[key]
        else:
            _sent[key] = before


def run_batch(runner: bytes, digest: str, tasks: bytes, number: int = 0) -> bytes:
    """Run a batch of packed tasks.

    Args:
        runner: packed; opened once for each ``digest`` and thread.
        digest: of it.
        tasks: packed.
        number: of the call. Dask takes equal calls for one, and has its old result for it.

    Returns:
        For `read_batch`: the outcomes, and the seconds that they took.
    """
    # A process that was forked from the sender's has another number.
    own, known = _sent.get((os.getpid(), digest), (None, {}))
    if getattr(_here, "digest", None) != digest:
        # Of its own, as through a pipe: a model cannot serve two threads at a time.
        _here.runner = pickle.loads(runner) if own is None else copy.deepcopy(own)
        _here.digest = digest
    batch = known.get(number)
    start = time.perf_counter()
    outcomes = [_here.runner(task) for task in (batch or pickle.loads(tasks))]
    return pickle.dumps((outcomes, time.perf_counter() - start), protocol=5)


def read_batch(content: bytes) -> tuple[list[Any], float]:
    """The outcomes of a batch, and the seconds that they took."""
    outcomes, seconds = pickle.loads(content)
    return outcomes, seconds
