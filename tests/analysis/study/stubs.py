"""Cells without a model, for what is about engines and stores."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenred.analysis.study.cell import DONE, Outcome, Setting, Task, failure
from tokenred.analysis.study.pool import Engine
from tokenred.strategies.strategy import Strategy

SETTING = Setting(0, 0, None, None, False, None, 8, None, 0)


def tasks(count: int) -> list[Task]:
    return [Task(f"key{i}", Strategy("Random"), SETTING) for i in range(count)]


@dataclass
class StubRunner:
    """Answers with the number in the key.

    Attributes:
        raises: keys of cells that raise.
        kills: keys of cells that kill their worker each time.
        once: keys of cells that kill their worker the first time.
        folder: notes which have.
        seconds: that a cell takes.
    """

    raises: tuple[str, ...] = ()
    kills: tuple[str, ...] = ()
    once: tuple[str, ...] = ()
    folder: str = ""
    seconds: float = 0.0

    def __call__(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        return map(self.answer, tasks)

    def answer(self, task: Task) -> Outcome:
        time.sleep(self.seconds)
        if task.key in self.raises:
            return failure(task.key, ValueError(f"{task.key} is bad"))
        if task.key in self.kills or (task.key in self.once and not self._has_killed(task.key)):
            os.kill(os.getpid(), signal.SIGKILL)
        number = int(task.key.removeprefix("key"))
        return Outcome(task.key, DONE, {"answer": number**2, "process": os.getpid()})

    def _has_killed(self, key: str) -> bool:
        mark = Path(self.folder) / key
        if mark.exists():
            return True
        mark.touch()
        return False


def run(engine: Engine, runner: Any, count: int) -> dict[str, Outcome]:
    """Outcomes by key, each of which came once."""
    stream = engine.run(runner, tasks(count), {StubRunner.__module__})
    found = [outcome for outcomes in stream for outcome in outcomes]
    by_key = {outcome.key: outcome for outcome in found}
    assert len(found) == len(by_key) == count
    return by_key


class Scripted(Engine):
    """Answers at once; stops or raises after so many cells."""

    name = "scripted"

    def __init__(self, after: int = 10**9, then: BaseException | None = None) -> None:
        self.after, self.then = after, then
        self.keys: list[str] = []
        self.closed = False
        self.status, self.error = DONE, ""

    def run(self, runner: Any, given: Sequence[Task], modules: set[str]) -> Iterator[list[Outcome]]:
        try:
            for task in given:
                if len(self.keys) == self.after and self.then is not None:
                    raise self.then
                self.keys.append(task.key)
                machine = {"torch": "2"}
                yield [
                    Outcome(
                        task.key, self.status, {"gmacs": 1.0}, None, self.error, "", 0.1, machine
                    )
                ]
        finally:
            self.closed = True


def row(key: str, status: str = DONE, **columns: Any) -> dict[str, Any]:
    """A row of the store."""
    told: dict[str, Any] = {
        "key": key, "study": "s", "axes": {"alpha": 0.1}, "strategy": "gtp", "method": "gtp",
        "config": "{}", "fingerprint": "f" + key, "model": "digits", "weights": "w",
        "data": "digits", "image_limit": None, "seed": 0, "dtype": "float32", "batch_size": 8,
        "metrics": {"gmacs": 1.5, "top1": 90.0}, "status": status, "error": "", "traceback": "",
        "attempts": 1, "seconds": 0.5, "engine": "serial", "machine": {"torch": "2"},
        "git_commit": "", "created": "now",
    }  # fmt: skip
    return told | columns
