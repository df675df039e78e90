"""Kill a grid with SIGKILL again and again, go on each time, and look for what was lost or doubled.

python tests/analysis/study/kill_and_resume.py STORE [KILLS [SEED]]

Prints a line of JSON, and leaves with 1 where something is wrong. Each run is a fork of this
process, so that a start takes milliseconds and not the seconds that importing PyTorch takes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tokenred.analysis.study import worker as _  # before the forks, which would import it each
from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.store import Store

ALPHAS, MS = 15, 10
SECONDS = 0.002
# A run is killed while it plans, or after some cells, and so many seconds later.
MOST_CELLS, LATEST = 10, 0.01


def make_grid(log: Path) -> Grid:
    def note(model: Any, data: Any, context: Any) -> dict[str, float]:
        """A cell that is quick, and leaves a trace outside the store."""
        time.sleep(SECONDS)
        with log.open("a") as file:
            file.write(f"{model.strategy.fingerprint()}\n")
        return {"answer": model.strategy.fuser.alpha * model.strategy.graph.M}

    axes = {"alpha": [i / 100 for i in range(ALPHAS)], "M": list(range(1, MS + 1))}
    return Grid("gtp:P=4", axes, model="digits", metrics=[note], name="killed")


def run(grid: Grid, path: Path) -> int:
    """Run the grid in a fork; its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            grid.run(path, progress=False)
            code = 0
        finally:
            os._exit(code)
    return child


def done(path: Path) -> set[str]:
    """Fingerprints of what is finished, by a connection of its own."""
    if not path.exists():
        return set()
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("SELECT fingerprint FROM results WHERE status = 'done'")
        return {fingerprint for (fingerprint,) in rows}
    except sqlite3.OperationalError:  # killed before there was a table
        return set()
    finally:
        connection.close()


def executed(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def wait_for(log: Path, count: int, child: int) -> None:
    """Wait until so many cells have run, or the run has ended."""
    while len(executed(log)) < count:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.001)


def main(path: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill, resume, and count."""
    torch.set_num_threads(1)
    log = path.with_suffix(".log")
    grid = make_grid(log)
    expected = {cell.fingerprint: cell.axes for cell in grid}
    draw = random.Random(seed)
    repeated, lost, killed, moments = [], [], 0, []
    before: set[str] = set()
    while killed < kills:
        already = len(executed(log))
        child = run(grid, path)
        wait_for(log, already + draw.randint(0, MOST_CELLS), child)
        time.sleep(draw.uniform(0, LATEST))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        now = done(path)
        if os.WIFSIGNALED(status):
            killed += 1
            moments.append(len(now))
        elif now == set(expected):  # it was quicker than the kill: once more from the start
            for place in path.parent.glob(f"{path.name}*"):
                place.unlink()
            log.unlink()
            before = set()
            continue
        else:
            raise SystemExit(f"a run ended by itself with status {status}")
        repeated += [f for f in executed(log)[already:] if f in before]
        lost += [f for f in before if f not in now]
        before = now
    _, status = os.waitpid(run(grid, path), 0)
    with Store(path) as store:
        (integrity,) = store._connection.execute("PRAGMA integrity_check").fetchone()
        rows = list(store.rows())
    wrong = [
        row["key"]
        for row in rows
        if row["metrics"].get("answer") != row["axes"]["alpha"] * row["axes"]["M"]
    ]
    return {
        "kills": killed,
        "finished at each kill": moments,
        "cells": len(expected),
        "rows": len(rows),
        "different": len({row["fingerprint"] for row in rows}),
        "executed": len(executed(log)),
        "repeated": len(repeated),
        "lost": len(lost),
        "wrong": len(wrong),
        "integrity": integrity,
        "last status": status,
    }


def is_fine(found: dict[str, Any]) -> bool:
    return (
        found["rows"] == found["different"] == found["cells"]
        and found["repeated"] == found["lost"] == found["wrong"] == found["last status"] == 0
        and found["integrity"] == "ok"
        # What was running at a kill is run again, and nothing else.
        and found["cells"] <= found["executed"] <= found["cells"] + found["kills"]
    )


if __name__ == "__main__":
    _, store_path, *numbers = sys.argv
    kills, seed = (int(number) for number in [*numbers, *(25, 0)[len(numbers) :]])
    told = main(Path(store_path), kills, seed)
    print(json.dumps(told))
    sys.exit(0 if is_fine(told) else 1)
