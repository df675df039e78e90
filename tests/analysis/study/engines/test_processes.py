"""Worker processes: they die, are replaced, and leave with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.analysis.study.stubs import StubRunner, tasks
from tokenred.analysis.study.cell import Outcome
from tokenred.analysis.study.engines.processes import Processes
from tokenred.analysis.study.errors import EngineError


def run(engine: Processes, runner: object, count: int) -> list[Outcome]:
    stream = engine.run(runner, tasks(count), {StubRunner.__module__})  # type: ignore[arg-type]
    return [outcome for outcomes in stream for outcome in outcomes]


def test_workers_that_die_are_replaced(tmp_path: Path) -> None:
    """One cell kills its first worker, and one every worker; all cells come back."""
    runner = StubRunner(once=("key2",), folder=str(tmp_path), kills=("key6",), raises=("key4",))
    found = {o.key: o for o in run(Processes(2, retries=1), runner, 12)}
    assert set(found) == {f"key{i}" for i in range(12)}
    assert {key for key, o in found.items() if o.status == "failed"} == {"key4", "key6"}
    assert "2 workers died over this cell (signal 9, SIGKILL)" in found["key6"].error
    twice = {"key2", "key6"}
    assert {key for key, o in found.items() if o.attempts == 2} == twice
    workers = {o.metrics["process"] for o in found.values() if o.status == "done"}
    assert os.getpid() not in workers
    assert len(workers) >= 2


class BadStart:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('cannot start')",)


def test_workers_that_cannot_start(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenred.analysis.study.engines.processes._FALSE_STARTS", 1)
    with pytest.raises(EngineError, match=r"before they were ready \(exit code 1\)"):
        run(Processes(1), BadStart(), 3)
    assert "cannot start" in capfd.readouterr().err


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_leave_when_their_parent_is_killed(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys
        from tests.analysis.study.stubs import StubRunner, tasks
        from tokenred.analysis.study.engines.processes import Processes
        stream = Processes(1).run(StubRunner(seconds=0.01), tasks(10**6), set())
        print(next(stream)[0].metrics["process"], flush=True)
        for _ in stream:
            pass
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as pipe:
        worker = Path("/proc") / pipe.readline().strip()
    assert worker.exists()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    for _ in range(200):
        if not worker.exists() or "Z" in (worker / "stat").read_text().split(")")[1][:3]:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the worker lives on")


def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tokenred.analysis.study.engines.processes.usable_cores", lambda: 8)
    assert Processes()._workers == 8
    assert Processes(3)._environment()["OMP_NUM_THREADS"] == "2"
    assert Processes(20)._environment()["OMP_NUM_THREADS"] == "1"
    assert Processes(2, threads=5)._environment()["MKL_NUM_THREADS"] == "5"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert Processes(2)._environment() == {}
    assert Processes(2, threads=1)._environment()["OMP_NUM_THREADS"] == "1"
