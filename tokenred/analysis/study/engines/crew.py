"""Processes that are started, heard, given tasks, and buried."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import threading
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from tokenred.analysis.study.cell import Outcome, Task
from tokenred.analysis.study.engines.frames import read_frame, write_frame
from tokenred.analysis.study.errors import EngineError
from tokenred.core.child import python_running

__all__ = ["Crew", "Worker"]

_MAIN = "tokenred.analysis.study.engines.process_worker"
_PATIENCE = 5.0


@dataclass(eq=False)
class Worker:
    """A process, the tasks it has (none once it is told to leave), and whether it is starting."""

    process: subprocess.Popen[bytes]
    tasks: list[Task]
    fresh: bool = True
    listener: threading.Thread | None = None


# None where the worker has ended.
Event = tuple[Worker, "list[Outcome] | None"]


class Crew:
    """Worker processes.

    Args:
        runner: what they run, packed.
        environment: variables that differ from this process's.
    """

    def __init__(self, runner: bytes, environment: dict[str, str]) -> None:
        self.workers: list[Worker] = []
        self.false_starts = 0
        self._runner = runner
        self._environment = {**os.environ, **environment}
        self._heard: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def start(self, tasks: list[Task]) -> None:
        """Start a worker for some tasks; it says when it is ready.

        Raises:
            EngineError: where no process can be started.
        """
        try:
            process = subprocess.Popen(
                python_running(_MAIN),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environment,
            )
        except OSError as error:
            raise EngineError(f"cannot start a worker process ({error}); use fewer.") from error
        worker = Worker(process, tasks)
        self.workers.append(worker)
        worker.listener = threading.Thread(target=self._listen, args=(worker,), daemon=True)
        worker.listener.start()
        self.give(worker, self._runner)

    def events(self) -> list[Event]:
        """What was heard from workers, at least one thing; waits for it."""
        found = [self._heard.get()]
        while not self._heard.empty():
            found.append(self._heard.get())
        return found

    def give(self, worker: Worker, content: bytes) -> None:
        """Send something to a worker. That it has died is heard elsewhere."""
        with contextlib.suppress(OSError):
            write_frame(_pipe(worker.process.stdin), content)

    def dismiss(self, worker: Worker) -> None:
        """Let a worker leave."""
        with contextlib.suppress(OSError):
            _pipe(worker.process.stdin).close()

    def bury(self, worker: Worker) -> str:
        """Forget a worker that has ended, and say how."""
        self.workers.remove(worker)
        self.dismiss(worker)
        try:
            code = worker.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            code = worker.process.wait()
        if worker.listener is not None:
            worker.listener.join(_PATIENCE)
        return _ending(code)

    def stop(self) -> None:
        """End all workers at once."""
        for worker in self.workers:
            worker.process.terminate()
        for worker in list(self.workers):
            self.bury(worker)

    def _listen(self, worker: Worker) -> None:
        with _pipe(worker.process.stdout) as pipe:
            while (frame := read_frame(pipe)) is not None:
                self._heard.put((worker, pickle.loads(frame)))
        self._heard.put((worker, None))


def _pipe(pipe: Any) -> BinaryIO:
    return cast(BinaryIO, pipe)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code}, {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
