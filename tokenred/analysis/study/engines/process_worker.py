"""The life of a worker process: a runner, then tasks through standard input until it ends."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from tokenred.analysis.study.engines.frames import read_frame, write_frame

__all__ = ["main"]

_LOOK_SECONDS = 1.0


def main() -> None:
    """Run tasks until the parent closes the pipe or is gone."""
    # What cells print goes to standard error, and what they read comes from nowhere.
    # The sink stays open until the process ends: once it closes, the exit code is there.
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", closefd=False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    # Ctrl-C reaches all processes of a terminal; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, args=(os.getppid(),), daemon=True).start()
    packed = read_frame(source)
    if packed is None:
        return
    runner: Callable[[Any], Any] = pickle.loads(packed)
    write_frame(sink, pickle.dumps([]))  # ready
    while (frame := read_frame(source)) is not None:
        write_frame(sink, pickle.dumps(_run(runner, frame)))


def _run(runner: Callable[[Any], Any], frame: bytes) -> list[Any]:
    return [runner(task) for task in pickle.loads(frame)]


def _leave_with_parent(parent: int) -> None:
    """A parent that was killed cannot say so."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    sys.stderr.flush()
    os._exit(1)
