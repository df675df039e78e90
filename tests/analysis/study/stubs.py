"""Cells without a model, for what is about engines and stores."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenred.analysis.study.cell import Cell, Outcome, failure, outcome
from tokenred.analysis.study.pool import Engine
from tokenred.analysis.study.rows import DONE
from tokenred.strategies.strategy import Strategy


def cells(count: int, strategy: Strategy | None = None) -> list[Cell]:
    made = Strategy("Random") if strategy is None else strategy
    return [Cell(i, {}, "", "", 0, made, "", f"key{i}") for i in range(count)]


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

    def __call__(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        return (self.answer(cell.key) for cell in cells)

    def answer(self, key: str) -> Outcome:
        time.sleep(self.seconds)
        if key in self.raises:
            return failure(key, ValueError(f"{key} is bad"))
        if key in self.kills or (key in self.once and not self._has_killed(key)):
            os.kill(os.getpid(), signal.SIGKILL)
        number = int(key.removeprefix("key"))
        return outcome(key, DONE, answer=number**2, process=os.getpid())

    def _has_killed(self, key: str) -> bool:
        mark = Path(self.folder) / key
        if mark.exists():
            return True
        mark.touch()
        return False


def run(engine: Engine, runner: Any, count: int) -> dict[str, Outcome]:
    """Outcomes by key, each of which came once."""
    found = [each for outcomes in engine.run(runner, cells(count)) for each in outcomes]
    by_key = {each["key"]: each for each in found}
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

    def run(self, runner: Any, cells: Sequence[Cell]) -> Iterator[list[Outcome]]:
        try:
            for cell in cells:
                if len(self.keys) == self.after and self.then is not None:
                    raise self.then
                self.keys.append(cell.key)
                yield [outcome(cell.key, self.status, gmacs=1.0, torch="2", error=self.error)]
        finally:
            self.closed = True


def row(key: str, status: str = DONE, **columns: Any) -> dict[str, Any]:
    """A row of the store."""
    told: dict[str, Any] = {
        "key": key, "study": "s", "axes": {"alpha": 0.1}, "strategy": "gtp", "method": "gtp",
        "config": "{}", "fingerprint": "f" + key, "model": "digits", "weights": "w",
        "data": "digits", "limit": None, "seed": 0, "dtype": "float32", "batch_size": 8,
        "gmacs": 1.5, "top1": 90.0, "status": status, "error": "", "traceback": "",
        "attempts": 1, "seconds": 0.5, "engine": "serial", "torch": "2",
        "commit": "", "created": "now",
    }  # fmt: skip
    return told | columns
