"""SIGKILL at random moments: nothing lost, nothing doubled.

The test runs this file as a program. Each run of its grid is a fork of that program, so that a
start takes milliseconds and not the seconds that importing PyTorch takes.
"""

import importlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.store import Store

KILLS = 25
AXES = {"alpha": [i / 100 for i in range(12)], "M": list(range(1, 9))}
# A run is killed while it plans, or after some cells, and so many seconds later.
MOST_CELLS, LATEST = 6, 0.01


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the program forks")
def test_25_kills(tmp_path: Path) -> None:
    program = [sys.executable, __file__, str(tmp_path / "runs.db")]
    ran = subprocess.run(program, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def make_grid(log: Path) -> Grid:
    def note(model: Any, data: Any, context: Any) -> dict[str, float]:
        """A cell that is quick, and leaves a trace outside the store."""
        time.sleep(0.002)
        with log.open("a") as file:
            file.write(f"{model.strategy.fingerprint()}\n")
        return {"answer": model.strategy.fuser.alpha * model.strategy.graph.M}

    return Grid("gtp:P=4", AXES, model="digits", metrics=[note], name="killed")


def start(grid: Grid, path: Path) -> int:
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


def finished(path: Path) -> set[str]:
    """Fingerprints of what is finished, by a connection of its own."""
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as connection:
        try:
            own = "json_extract(row, '$.fingerprint')"
            rows = connection.execute(f"SELECT {own} FROM results WHERE status = 'done'")
        except sqlite3.OperationalError:  # killed before there was a table
            return set()
        return {fingerprint for (fingerprint,) in rows}


def executed(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def main(path: Path) -> None:
    """Kill, resume, and count."""
    torch.set_num_threads(1)
    importlib.import_module("tokenred.analysis.study.worker")  # once, not in every fork
    log = path.with_suffix(".log")
    grid, draw = make_grid(log), random.Random(1)
    expected = {cell.fingerprint for cell in grid}
    before, killed, midway = set[str](), 0, 0
    while killed < KILLS:
        already = executed(log)
        child, count = start(grid, path), len(already) + draw.randint(0, MOST_CELLS)
        while len(executed(log)) < count and not os.waitid(
            os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT
        ):
            time.sleep(0.001)
        time.sleep(draw.uniform(0, LATEST))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        now = finished(path)
        assert before <= now, "results are lost"
        assert not before & set(executed(log)[len(already) :]), "results are computed again"
        if os.WIFSIGNALED(status):
            killed += 1
            midway += 0 < len(now) < len(expected)
            before = now
        else:  # it was quicker than the kill: once more from the start
            assert now == expected
            for place in (log, *path.parent.glob(f"{path.name}*")):
                place.unlink()
            before = set()
    assert os.waitpid(start(grid, path), 0)[1] == 0
    with Store(path) as store:
        assert [*store._ask("PRAGMA integrity_check")[0]] == ["ok"]
        rows = list(store.rows())
    assert len(rows) == len(expected)
    assert {row["fingerprint"] for row in rows} == expected
    assert all(row["answer"] == row["axes"]["alpha"] * row["axes"]["M"] for row in rows)
    # What was running at a kill is run again, and nothing else.
    assert len(expected) <= len(executed(log)) <= len(expected) + KILLS
    # The kills came in the middle, not all at the start or the end.
    assert midway >= KILLS // 2


if __name__ == "__main__":
    main(Path(sys.argv[1]))
