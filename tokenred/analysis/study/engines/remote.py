"""What runs on the other side of an executor or a cluster: bytes in, bytes out."""

from __future__ import annotations

import pickle
import threading
import time
from typing import Any

__all__ = ["read_batch", "run_batch"]

# The runner of a worker, with the models and images that it has loaded: one a thread, since a
# model cannot serve two cells at a time.
_here = threading.local()


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
    if getattr(_here, "digest", None) != digest:
        _here.runner, _here.digest = pickle.loads(runner), digest
    start = time.perf_counter()
    outcomes = [_here.runner(task) for task in pickle.loads(tasks)]
    return pickle.dumps((outcomes, time.perf_counter() - start), protocol=5)


def read_batch(content: bytes) -> tuple[list[Any], float]:
    """The outcomes of a batch, and the seconds that they took."""
    outcomes, seconds = pickle.loads(content)
    return outcomes, seconds
