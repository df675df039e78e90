"""Every engine gives each cell one outcome, whatever dies meanwhile."""

import importlib
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tokenred as tr
from tests.analysis.study.conftest import MakeGrid
from tests.analysis.study.stubs import StubRunner, cells, run
from tokenred.analysis.study.cell import EngineError
from tokenred.analysis.study.engines import ENGINES, Processes, pick_engine
from tokenred.analysis.study.pool import Executor, Parcel, own_modules, packed
from tokenred.analysis.study.study import Study
from tokenred.core.errors import ConfigError, MissingExtraError, UnknownNameError

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="Ray is an extra")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about changes that Ray plans
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


# ---------------------------------------------------------------- the same rows


def notebook() -> tuple[type[tr.Scorer], Any]:
    """A scorer and a metric as a notebook defines them: in ``__main__``."""

    class Mine(tr.Scorer):
        power: float = 1.0

        def __call__(self, state: Any, attention: Any) -> Any:
            return state.image.norm(dim=-1) ** self.power

    def entropy(model: Any, data: Any, context: Any) -> dict[str, float]:
        image, _, index = data[0]
        p = model(image[None]).softmax(dim=-1)
        return {"entropy": float(-(p * p.log()).sum()), "first": index}

    Mine.__module__ = entropy.__module__ = "__main__"
    return Mine, entropy


def check_same(study: Study, expected: Study) -> None:
    """All cells done, with the same rows and the same predictions."""
    for own, other in zip(study.records, expected.records, strict=True):
        assert own["status"] == other["status"] == "done", own["traceback"] + other["traceback"]
        for column in ("gmacs", "overhead_gmacs", "top1", "top5", "entropy"):
            assert own[column] == pytest.approx(other[column], abs=1e-6)
        for column in ("key", "tokens", "strategy", "fingerprint", "weights", "images", "first"):
            assert own[column] == other[column]
        one, two = study.store.predictions(own["key"]), expected.store.predictions(other["key"])
        assert one.index.tolist() == two.index.tolist()
        assert one.rank.tolist() == two.rank.tolist()


@pytest.mark.parametrize("name", ["executor", "processes", pytest.param("ray", marks=slow)])
def test_as_in_process(make_grid: MakeGrid, name: str, request: pytest.FixtureRequest) -> None:
    """Parts of a notebook, which workers cannot import."""
    if name == "ray":
        request.getfixturevalue("cluster")
    scorer, entropy = notebook()
    before = vars(scorer)["__call__"]
    grid = make_grid(
        {"scorer": ["MixedAttn", scorer(2.0)], "theta": [0.8]},
        base="gtp:P=7", metrics=["accuracy", entropy], limit=20, batch_size=16,
    )  # fmt: skip
    expected = grid.run(progress=False)
    with ThreadPoolExecutor(2) as executor:
        engine = executor if name == "executor" else name
        study = grid.run(engine=engine, workers=1, threads=1, progress=False)
    check_same(study, expected)
    assert {row["engine"] for row in study.records} == {name}
    # Read back from bytes here, methods would no longer see a helper that is edited.
    assert vars(scorer)["__call__"] is before


# ---------------------------------------------------------------- what dies


def test_a_process_that_dies_is_replaced() -> None:
    found = run(Processes(1, threads=1, retries=0), StubRunner(kills=("key0",)), 2)
    assert [o["status"] for _, o in sorted(found.items())] == ["failed", "done"]
    assert "workers died over this cell" in found["key0"]["error"]
    assert "SIGKILL" in found["key0"]["error"]
    assert found["key1"]["process"] != os.getpid()


@slow
@pytest.mark.parametrize(("name", "count"), [("processes", 12), ("ray", 60)])
def test_workers_that_die_are_replaced(
    name: str, count: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One cell kills its first worker, and one every worker; all cells come back."""
    if name == "ray":
        request.getfixturevalue("cluster")
    runner = StubRunner(once=("key2",), folder=str(tmp_path), kills=("key6",), raises=("key4",))
    found = run(pick_engine(name, workers=2, threads=1, retries=1), runner, count)
    assert {key for key, o in found.items() if o["status"] == "failed"} == {"key4", "key6"}
    assert "2 workers died over this cell" in found["key6"]["error"]
    assert found["key6"]["attempts"] >= 2
    answers = {key: o["answer"] for key, o in found.items() if o["status"] == "done"}
    assert answers == {key: int(key[3:]) ** 2 for key in answers}
    assert os.getpid() not in {found[key]["process"] for key in answers}


PROGRAM = """
from tests.analysis.study.stubs import StubRunner, cells
from tokenred.analysis.study.engines import Processes
stream = Processes(1, 1).run(StubRunner(seconds=0.01), cells(10**4))
print(next(stream)[0]["process"], flush=True)
for _ in stream:
    pass
"""


@slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_processes_leave_when_their_parent_is_killed() -> None:
    program = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(program, stdout=-1, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        worker = Path("/proc") / parent.stdout.readline().strip()
        assert worker.exists()
        parent.kill()
    for _ in range(200):
        if not worker.exists() or "Z" in (worker / "stat").read_text().split(")")[1][:3]:
            return
        time.sleep(0.1)
    pytest.fail("the worker lives on")


# ---------------------------------------------------------------- anything with submit


class Job:
    """Like submitit's: no callback, and not done at first."""

    def __init__(self, call: Any, patience: int) -> None:
        self.result, self.patience, self.cancelled = call, patience, False

    def done(self) -> bool:
        self.patience -= 1
        return self.patience < 0

    def cancel(self) -> None:
        self.cancelled = True


class Cluster:
    """Loses its first nodes; the others have the bytes of what is sent, and not the thing itself.

    A job waits the longer the later it came, if they are ``uneven``.
    """

    _max_workers = 2

    def __init__(self, bad: int = 0, uneven: bool = False) -> None:
        self.jobs: list[Job] = []
        self.seen: list[Any] = []
        self.bad, self.uneven = bad, uneven

    def submit(self, function: Any, *arguments: Parcel) -> Job:
        self.seen.append(arguments)

        def call(lost: bool = len(self.seen) <= self.bad) -> Any:
            if lost:
                raise RuntimeError("node lost")
            return function(*pickle.loads(pickle.dumps(arguments)))

        self.jobs.append(Job(call, len(self.jobs) ** 3 if self.uneven else 2))
        return self.jobs[-1]


class Unreadable:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise ValueError('not here')",)


@pytest.mark.parametrize("name", ["elsewhere", *(pytest.param(n, marks=slow) for n in ENGINES[1:])])
def test_workers_that_cannot_start(name: str, request: pytest.FixtureRequest) -> None:
    if name == "ray":
        request.getfixturevalue("cluster")
    engine = Executor(Cluster()) if name == "elsewhere" else pick_engine(name, workers=1)
    with pytest.raises(EngineError, match=r"cannot unpickle their work .*not here"):
        run(engine, Unreadable(), 3)


def test_a_lost_node_is_made_up_for() -> None:
    cluster = Cluster(bad=2)
    found = run(Executor(cluster), StubRunner(raises=("key3",)), 20)
    assert found["key3"]["error"] == "ValueError: key3 is bad"
    assert sum(o["status"] == "done" for o in found.values()) == 19
    assert sorted(o["attempts"] for o in found.values()) == [1] * 18 + [2] * 2
    # Dask gives the old result for an equal call, also where that was an error.
    assert len(set(cluster.seen)) == len(cluster.seen)
    bad = run(Executor(Cluster(bad=9), retries=2), StubRunner(), 3)
    assert all("3 workers died" in o["error"] and "node lost" in o["error"] for o in bad.values())


def test_an_executor_that_takes_no_more() -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(EngineError, match="accepts no more work"):
        run(Executor(executor), StubRunner(), 3)


def test_stopping_cancels_what_waits() -> None:
    cluster = Cluster(uneven=True)
    stream = Executor(cluster).run(StubRunner(), cells(50))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert [job.cancelled for job in cluster.jobs] == [False, True, True, True]


def test_a_part_that_cannot_travel_is_a_failed_cell() -> None:
    class Locked(tr.Scorer):
        lock = threading.Lock()

        def __call__(self, state: Any, attention: Any) -> Any:
            return state.image.norm(dim=-1)

    (one,) = Executor(Cluster()).run(StubRunner(), cells(1, tr.Strategy(Locked())))
    assert one[0]["status"] == "failed"
    assert "pickle" in one[0]["error"]


def test_an_own_module_goes_by_value_as_it_was_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of another machine lack it, and here it may have changed since its import."""
    (tmp_path / "my_parts.py").write_text(
        "import tokenred as tr\nFACTOR = 3.0\n"
        "class Own(tr.Scorer):\n"
        "    def __call__(self, state, attention):\n"
        "        return state.image.norm(dim=-1) * FACTOR\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("my_parts")
    module.FACTOR = 4.0
    (cell,) = cells(1, tr.Strategy(module.Own()))
    parcel = packed(cell, own_modules())
    del sys.modules["my_parts"]
    there = pickle.loads(parcel.packed)
    assert "my_parts" not in sys.modules
    assert type(there.strategy.scorer).__call__.__globals__["FACTOR"] == 4.0


# ---------------------------------------------------------------- by name


@pytest.mark.parametrize("name", ENGINES)
def test_names(name: str) -> None:
    engine = pick_engine(name, workers=1)
    assert engine.name == name
    assert pick_engine(engine) is engine


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ("proceses", {}, UnknownNameError, "Did you mean 'processes'"),
        (object(), {}, ConfigError, "with submit"),
        ("serial", {"workers": 0}, ConfigError, "workers"),
        ("serial", {"threads": 1.5}, ConfigError, "threads"),
        ("serial", {"retries": None}, ConfigError, "retries"),
        ("processes", {"address": "auto"}, ConfigError, "leave it out"),
    ],
)
def test_refused(given: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pick_engine(given, **options)


def test_ray_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tokenred\[ray\]'"):
        pick_engine("ray")


def test_a_cluster_that_cannot_be_reached() -> None:
    pytest.importorskip("ray", reason="Ray is an extra").shutdown()  # what other tests started
    with pytest.raises(EngineError, match=r"cannot start or reach Ray on nonsense://x"):
        run(pick_engine("ray", address="nonsense://x"), StubRunner(), 1)


@slow
def test_workers_leak_nothing(tmp_path: Path) -> None:
    words = "ablate -a alpha=0.1,0.2 --limit 2 --engine processes --workers 2"
    ran = subprocess.run(
        [sys.executable, "-m", "tokenred", *words.split()],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    assert "leaked" not in ran.stderr
