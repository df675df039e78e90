"""Running the cells of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenred.analysis.reproduction.cells import Settings, run_points
from tokenred.analysis.reproduction.experiments import EXPERIMENTS
from tokenred.analysis.reproduction.points import Point
from tokenred.analysis.reproduction.stands import Stand
from tokenred.analysis.study.store import Store

EXPERIMENT = EXPERIMENTS["table1"]
STAND = Stand("digits", "DeiT-S", {"spec": "digits"})
POINTS = (
    Point("two", ({"base": "gtp", "P": 2}, {"base": "gtp", "P": 3})),
    Point("owed", owed="no weights"),
    Point("too many", ({"base": "gtp", "P": 40},)),
)


def settings(store: Path | None, **more: Any) -> Settings:
    metrics = () if store is None else ("accuracy",)
    data = None if store is None else "digits"
    told = {"limit": 10, "images": 10, "metrics": metrics, "progress": False} | more
    return Settings(store, data, **told)


def test_rows_of_each_point(tmp_path: Path) -> None:
    found = run_points(EXPERIMENT, STAND, POINTS, settings(tmp_path / "a.db"))
    assert [len(rows) for rows in found] == [2, 0, 1]
    first, second = found[0]
    assert (first["P"], second["P"]) == (2, 3)
    assert first["gmacs"] > second["gmacs"]
    # With a paired difference from the dense model.
    assert {"top1", "difference", "difference_low"} <= set(first)
    assert found[2][0]["status"] == "skipped"
    assert found[2][0]["error"].startswith("ScheduleError")
    with Store(tmp_path / "a.db") as store:
        assert {row["study"] for row in store.rows()} == {"table1"}
        assert {row["method"] for row in store.rows()} == {"dense", "gtp"}


def test_costs_follow_from_the_plan(monkeypatch: Any) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a cell ran")

    monkeypatch.setattr("tokenred.analysis.study.worker.Runner.__call__", never)
    found = run_points(EXPERIMENT, STAND, POINTS, settings(None))
    assert [len(rows) for rows in found] == [2, 0, 1]
    assert found[0][0]["gmacs"] > found[0][1]["gmacs"] > 0
    assert found[0][0]["error"] == ""
    assert found[2][0]["error"].startswith("ScheduleError")


def test_nothing_to_run() -> None:
    assert run_points(EXPERIMENT, STAND, POINTS[1:2], settings(None)) == ((),)
