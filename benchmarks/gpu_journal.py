"""What ``gpu.py`` keeps of its figures, and the process that measures them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FIGURES, BEGUN, SUMMARY = "figures.jsonl", "begun.json", "summary.md"
# How a process ends that cannot use the GPU any longer, and one that ran out of time.
BROKEN, NO_TIME = 3, 4
Row = dict[str, Any]


class Journal:
    """The figures known so far, one line of JSON each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / FIGURES
        self.rows: list[Row] = []
        self.read()

    def read(self) -> None:
        """What is in the file now; another process may have written to it."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.rows = []
        for line in lines:
            with contextlib.suppress(ValueError):  # cut off in the middle
                self.rows.append(json.loads(line))

    def has(self, stage: str, key: Mapping[str, Any]) -> bool:
        told = _named(stage, key)
        return any(_named(row["stage"], {name: row.get(name) for name in key}) == told
                   for row in self.rows)  # fmt: skip

    def begin(self, stage: str, key: Mapping[str, Any], limit: float) -> None:
        told = {"stage": stage, **key, "until": time.time() + limit}
        (self.folder / BEGUN).write_text(json.dumps(told), encoding="utf-8")

    def begun(self) -> Row | None:
        """The figure that is being measured, or was when its process ended."""
        try:
            return json.loads((self.folder / BEGUN).read_text(encoding="utf-8"))  # type: ignore[no-any-return]
        except (OSError, ValueError):
            return None

    def add(self, row: Row) -> None:
        row = {name: _short(value) for name, value in row.items() if name != "until"}
        line = json.dumps(row, ensure_ascii=False, default=str)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)
        self.rows.append(row)
        (self.folder / BEGUN).unlink(missing_ok=True)


def _named(stage: str, key: Mapping[str, Any]) -> str:
    return json.dumps([stage, *key.values()], default=str)


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def supervise(journal: Journal, command: Sequence[str], end: float) -> None:
    """Keep a process at work until all is measured or the time is over."""
    while time.time() < end:
        worker = subprocess.Popen([*command, "--until", str(end)], start_new_session=True)
        try:
            code = _wait(worker, journal, end)
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
        journal.read()
        begun = journal.begun()
        if code == 0 or (begun is None and code != BROKEN):
            return  # all done, or it cannot even start
        if begun is not None and code != NO_TIME:
            why = "no answer in time" if code is None else f"its process ended with {code}"
            journal.add({**begun, "error": why})


def _wait(worker: subprocess.Popen[bytes], journal: Journal, end: float) -> int | None:
    """How a process ended; None for one that does not answer."""
    while worker.poll() is None:
        time.sleep(0.1)
        if time.time() > end:
            return NO_TIME
        begun = journal.begun()
        if begun is not None and time.time() > begun["until"]:
            return None
    return worker.returncode


def table(rows: Sequence[Row]) -> str:
    """Rows as Markdown, with all columns that any of them has."""
    names = dict.fromkeys(name for row in rows for name in row if name not in ("stage", "took_s"))
    lines = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    for row in rows:
        cells = (str(row.get(name, "")).replace("|", "¦").replace("\n", " ") for name in names)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
