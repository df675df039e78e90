"""Ray actors, on one cluster for the whole file."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.study.conftest import MakeGrid
from tests.analysis.study.stubs import StubRunner, tasks
from tests.analysis.study.test_same_rows import check_same, notebook
from tokenred.analysis.study.cell import Outcome
from tokenred.analysis.study.engines import ray as module
from tokenred.analysis.study.engines.ray import Ray
from tokenred.analysis.study.errors import EngineError

ray = pytest.importorskip("ray", reason="Ray is an extra")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about changes that Ray plans
        Ray(workers=2)._connect()
        yield
        ray.shutdown()


def run(engine: Ray, count: int, runner: object) -> list[Outcome]:
    stream = engine.run(runner, tasks(count), {StubRunner.__module__})  # type: ignore[arg-type]
    return [outcome for outcomes in stream for outcome in outcomes]


@pytest.mark.usefixtures("cluster")
def test_cells_of_killed_actors_are_started_again(tmp_path: Path) -> None:
    """Many short cells, so that they travel in batches; one kills once, and one each time."""
    runner = StubRunner(once=("key300",), folder=str(tmp_path), kills=("key400",), raises=("key7",))
    found = {o.key: o for o in run(Ray(workers=2, retries=1), 600, runner)}
    assert len(found) == 600
    assert {key for key, o in found.items() if o.status == "failed"} == {"key7", "key400"}
    assert found["key300"].attempts == 2
    assert "workers died over this cell" in found["key400"].error
    assert all(o.metrics["answer"] == int(key[3:]) ** 2 for key, o in found.items() if o.metrics)
    actors = {o.metrics["process"] for o in found.values() if o.metrics}
    assert os.getpid() not in actors
    assert len(actors) >= 2
    assert ray.is_initialized()  # a cluster that was there stays


class BadStart:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise ValueError('cannot start')",)


@pytest.mark.usefixtures("cluster")
def test_actors_that_cannot_start() -> None:
    with pytest.raises(EngineError, match="cannot start"):
        run(Ray(workers=1), 3, BadStart())


@pytest.mark.usefixtures("cluster")
def test_a_grid_of_own_parts(make_grid: MakeGrid, tmp_path: Path) -> None:
    """Scorer and metric are of a notebook, which the actors cannot import."""
    scorer, entropy = notebook()
    grid = make_grid(
        {"scorer": ["MixedAttn", scorer(2.0)], "alpha": [0.1, 0.4]}, metrics=["accuracy", entropy]
    )
    study = grid.run(tmp_path / "ray.db", engine="ray", workers=1, progress=False)
    assert {row["engine"] for row in study.records} == {"ray"}
    check_same(study, grid.run(progress=False))


@pytest.mark.usefixtures("cluster")
def test_an_actor_is_killed_in_the_middle_of_a_grid(make_grid: MakeGrid, tmp_path: Path) -> None:
    """With SIGKILL from outside, while two work; no row is missing, and none is there twice."""
    notes = tmp_path / "processes"
    notes.mkdir()

    def slow(model: Any, data: Any, context: Any) -> dict[str, Any]:
        (notes / str(os.getpid())).touch()
        time.sleep(0.05)
        return {"answer": model.strategy.fuser.alpha, "process": os.getpid()}

    slow.__module__ = "__main__"
    axes = {"alpha": [i / 100 for i in range(60)]}
    grid = make_grid(axes, metrics=[slow], data=None, limit=None)
    killed: list[int] = []
    stop = threading.Event()

    def kill() -> None:
        while len(there := list(notes.iterdir())) < 2:
            if stop.wait(0.01):
                return
        killed.append(int(there[0].name))
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        study = grid.run(tmp_path / "a.db", engine="ray", workers=2, progress=False)
    finally:
        stop.set()
        thread.join()
    assert killed
    rows = study.records
    assert [row["status"] for row in rows] == ["done"] * 60
    assert [row["answer"] for row in rows] == axes["alpha"]
    assert len(study.store) == 60
    assert max(row["attempts"] for row in rows) <= 2


class FakeRay:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.options: dict[str, Any] = {}
        self.down = False

    def is_initialized(self) -> bool:
        return False

    def init(self, **options: Any) -> None:
        self.options = options
        if self.error is not None:
            raise self.error

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 8.0}

    def shutdown(self) -> None:
        self.down = True


def test_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    fake = FakeRay()
    monkeypatch.setattr(module, "import_ray", lambda: fake)
    with Ray(threads=3)._cluster() as actors:
        assert actors == 2
    assert fake.down
    assert fake.options["num_cpus"] >= 3
    with Ray(workers=7, address="auto")._cluster() as actors:
        assert actors == 7
    assert fake.options["address"] == "auto"
    assert "num_cpus" not in fake.options


def test_a_cluster_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay(ConnectionError("nobody there"))
    monkeypatch.setattr(module, "import_ray", lambda: fake)
    with pytest.raises(EngineError, match=r"ray://here:1 \(ConnectionError: nobody there\)"):
        run(Ray(address="ray://here:1"), 1, StubRunner())
