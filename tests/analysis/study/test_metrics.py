"""What is measured."""

from typing import Any

import pytest

from tests.analysis.study.conftest import MakeGrid
from tokenred.analysis.study.metrics import list_metrics, read_metrics, register_metric
from tokenred.core.errors import ConfigError


def test_options() -> None:
    assert {"accuracy", "memory", "speed", "split"} <= set(list_metrics())
    one, two = read_metrics([{"name": "speed", "pairs": 3}, "Speed"])
    assert (one.name, one.timed) == ("speed", True)
    assert one.version != two.version
    with pytest.raises(ConfigError, match="pairs"):
        read_metrics([{"name": "speed", "pairs": "few"}])
    with pytest.raises(ConfigError, match="needs a name"):
        register_metric(" ")


def version(function: Any) -> str:
    (metric,) = read_metrics([function])
    return metric.version


def test_the_version_is_that_of_the_source() -> None:
    def define(number: int) -> Any:
        space: dict[str, Any] = {"__name__": "notebook"}
        exec(f"def helper(): return {number}\ndef mine(*_): return dict(a=helper())", space)
        return space["mine"]

    assert version(define(1)) == version(define(1)) != version(define(2))  # a helper that it calls
    found = []
    for options, number in (({}, 1), ({}, 2), ({"version": 3}, 1), ({"version": 3}, 2)):
        register_metric("mine", **options)(define(number))
        found.append(version("mine"))
    assert found[0] != found[1]
    assert found[2:] == ["3", "3"]


def test_metrics_stand_side_by_side(make_grid: MakeGrid) -> None:
    def images(model: Any, data: Any, context: Any) -> dict[str, Any]:
        assert context.batch_size == 4
        return {"seen": len(data), "first": data[0][2]}

    grid = make_grid(metrics=["accuracy", "speed", images], limit=10, batch_size=4)
    (row,) = grid.run(progress=False).records
    assert row["status"] == "done", row["error"]
    assert row["seen"] == row["images"] == 10
    assert row["speedup"] > 0
    assert row["dense_gmacs"] > row["gmacs"]


def test_a_metric_that_returns_something_else(make_grid: MakeGrid) -> None:
    (row,) = make_grid(metrics=[lambda *_: 3]).run(progress=False).records
    assert row["status"] == "failed"
    assert "must return names and values, got int" in row["error"]
