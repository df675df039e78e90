"""From tasks to rows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import tokenred as tr
from tests.analysis.study.conftest import MakeGrid
from tokenred.analysis.study.cell import DONE, Outcome, Task
from tokenred.analysis.study.engines.base import Engine, Run
from tokenred.analysis.study.errors import EngineError, StoreError, StudyInterruptedError
from tokenred.analysis.study.store import Store


class Scripted(Engine):
    """Answers without running; after some cells it does something else."""

    name = "scripted"

    def __init__(self, after: int = 10**9, then: BaseException | None = None) -> None:
        self.after = after
        self.then = then
        self.keys: list[str] = []
        self.closed = False

    def run(self, runner: Run, tasks: Iterator[Task], modules: set[str]) -> Iterator[list[Outcome]]:
        try:
            for task in tasks:
                if len(self.keys) == self.after:
                    if self.then is None:
                        return
                    raise self.then
                self.keys.append(task.key)
                yield [Outcome(task.key, DONE, {"gmacs": 1.0}, machine={"torch": "2"})]
        finally:
            self.closed = True


AXES = {"alpha": [0.1, 0.2, 0.3, 0.4]}


def test_a_row_says_what_produced_it(make_grid: MakeGrid, store: Store) -> None:
    make_grid({"alpha": [0.2], "dtype": ["float64"]}, name="mine", seed=3).run(
        store, engine=Scripted(), progress=False
    )
    (row,) = store.rows()
    config = json.loads(row["config"])
    assert config["fuser"] == {"name": "propagate", "alpha": 0.2}
    strategy = tr.strategy("gtp", P=6, alpha=0.2)
    assert row["fingerprint"] == strategy.fingerprint()
    expected = {
        "study": "mine", "strategy": "gtp:P=6,alpha=0.2", "method": "gtp", "model": "digits",
        "data": "digits", "image_limit": 10, "seed": 3, "dtype": "float64", "status": "done",
        "engine": "scripted", "axes": {"alpha": 0.2, "dtype": "float64"}, "attempts": 1,
        "metrics": {"gmacs": 1.0}, "machine": {"torch": "2"}, "batch_size": 64,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert row["created"].startswith("20")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    assert row["git_commit"].removesuffix("+") == commit.stdout.strip()


def test_no_commit_outside_a_repository(
    make_grid: MakeGrid, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    make_grid().run(store, engine=Scripted(), progress=False)
    assert [row["git_commit"] for row in store.rows()] == [""]


def test_an_interrupt_keeps_what_is_finished_and_says_how_to_go_on(
    make_grid: MakeGrid, store: Store
) -> None:
    grid = make_grid(AXES)
    engine = Scripted(after=2, then=KeyboardInterrupt())
    with pytest.raises(StudyInterruptedError, match=r"2 cells .* 2 are to go.*same grid") as caught:
        grid.run(store, engine=engine, progress=False)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert len(store) == 2
    assert engine.closed
    with store.writing():  # the lock is free
        pass
    rest = Scripted()
    assert len(grid.run(store, engine=rest, progress=False).records) == 4
    assert len(rest.keys) == 2
    assert not set(rest.keys) & set(engine.keys)


def test_a_full_disk_stops_the_engine(
    make_grid: MakeGrid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Store.write, []

    def write(self: Store, rows: object) -> None:
        calls.append(rows)
        if len(calls) == 3:
            raise StoreError("cannot write (database or disk is full): free some space")
        real(self, rows)  # type: ignore[arg-type]

    engine = Scripted()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", write)
        with pytest.raises(StoreError, match="disk is full"):
            make_grid(AXES).run(store, engine=engine, progress=False)
    assert engine.closed
    assert len(store) == 2
    assert len(make_grid(AXES).run(store, engine=Scripted(), progress=False).records) == 4


def test_an_engine_that_forgets_cells(make_grid: MakeGrid, store: Store) -> None:
    class Forgets(Engine):
        name = "forgets"

        def run(
            self, runner: Run, tasks: Iterator[Task], modules: set[str]
        ) -> Iterator[list[Outcome]]:
            list(tasks)
            yield []

    with pytest.raises(EngineError, match="without outcomes for 4 cells"):
        make_grid(AXES).run(store, engine=Forgets(), progress=False)
    assert len(store) == 0


def test_what_is_left_out_is_noted(make_grid: MakeGrid, store: Store) -> None:
    grid = make_grid({"P": [4, *range(20, 50)]}, invalid="skip")
    engine = Scripted()
    records = grid.run(store, engine=engine, progress=False).records
    assert len(engine.keys) == 1
    assert [row["status"] for row in records] == ["done"] + ["skipped"] * 30
    assert records[1]["error"].startswith("ScheduleError: ")
    again = Scripted()
    grid.run(store, engine=again, progress=False)
    assert not again.keys


def test_an_engine_is_not_started_for_nothing(make_grid: MakeGrid, store: Store) -> None:
    class Never(Scripted):
        def run(self, *_: object) -> Iterator[list[Outcome]]:  # type: ignore[override]
            raise AssertionError("started")

    grid = make_grid({"P": [30]}, invalid="skip")
    assert [r["status"] for r in grid.run(store, engine=Never(), progress=False).records] == [
        "skipped"
    ]


def test_failed_cells_are_tried_again_only_when_asked(make_grid: MakeGrid, store: Store) -> None:
    class Fails(Scripted):
        def run(
            self, runner: Run, tasks: Iterator[Task], modules: set[str]
        ) -> Iterator[list[Outcome]]:
            for task in tasks:
                self.keys.append(task.key)
                yield [Outcome(task.key, "failed", error="ValueError: bad")]

    grid = make_grid({"alpha": [0.1, 0.2]})
    first = grid.run(store, engine=Fails(), progress=False)
    assert [row["error"] for row in first.failed()] == ["ValueError: bad"] * 2
    second = Scripted()
    assert len(grid.run(store, engine=second, progress=False).failed()) == 2
    assert not second.keys
    assert not grid.run(store, engine=second, retry_failed=True, progress=False).failed()
    assert len(second.keys) == 2
    assert len(store) == 2


def test_the_bar_counts_what_was_done_before(
    make_grid: MakeGrid, store: Store, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from tokenred.analysis.study import running

    made = []
    real = running.tqdm

    def bar(**options: object) -> object:
        made.append(real(**{**options, "disable": False}))  # type: ignore[call-overload]
        return made[-1]

    monkeypatch.setattr(running, "tqdm", bar)
    grid = make_grid(AXES, name="mine")
    with pytest.raises(StudyInterruptedError):
        grid.run(store, engine=Scripted(1, KeyboardInterrupt()))
    grid.run(store, engine=Scripted())
    assert [(b.initial, b.total, b.n) for b in made] == [(0, 4, 1), (1, 4, 4)]
    assert "mine" in capsys.readouterr().err
