"""The points of a grid."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import tokenred as tr
from tokenred.analysis.study.axes import Axes, plain
from tokenred.core.errors import ConfigError


def points(axes: Axes) -> list[dict[str, Any]]:
    return [point for _, point in axes]


def test_the_cross_product_the_last_axis_fastest() -> None:
    axes = Axes({"a": [1, 2], "b": "xyz".__iter__(), "c": [None]}, None)
    assert len(axes) == 6
    expected = [{"a": a, "b": b, "c": None} for a, b in itertools.product([1, 2], "xyz")]
    assert points(axes) == expected
    assert [list(point) for point in points(axes)] == [["a", "b", "c"]] * 6


def test_settings_vary_slowest() -> None:
    axes = Axes({"alpha": [1, 2], "seed": [0, 1], "model": ["m", "n"]}, None)
    found = [(p["model"], p["seed"], p["alpha"]) for p in points(axes)]
    assert found == sorted(found)
    assert axes.names == ("alpha", "seed", "model")


def test_nothing_is_one_point() -> None:
    assert points(Axes(None, None)) == [{}]
    assert points(Axes({}, [])) == [{}]
    assert points(Axes(None, [{"a": 1}])) == [{"a": 1}]


def test_single_points_come_after() -> None:
    axes = Axes({"a": [1, 2]}, [{"a": 9, "b": 3}, {}])
    assert points(axes) == [{"a": 1}, {"a": 2}, {"a": 9, "b": 3}, {}]
    assert axes.names == ("a", "b")
    assert axes.values("a") == (1, 2, 9)
    assert axes.values("b") == (3,)


def test_where_sees_labels() -> None:
    seen = []

    class Named:
        label = "gtp"

    def where(point: dict[str, Any]) -> bool:
        seen.append(point)
        return bool(point["a"] > 1)

    axes = Axes({"base": [Named()], "a": [1, 2]}, None, where)
    assert [position for position, _ in axes] == [1]
    assert len(axes) == 2
    assert seen == [{"base": "gtp", "a": 1}, {"base": "gtp", "a": 2}]


def test_numpy_numbers_become_pythons_own() -> None:
    axes = Axes({"a": np.linspace(0, 1, 3), "M": np.arange(2), "v": [np.array([1, 2])]}, None)
    assert [type(v) for v in axes.values("a")] == [float] * 3
    assert [type(v) for v in axes.values("M")] == [int] * 2
    assert axes.values("v") == ((1, 2),)


@pytest.mark.parametrize(
    ("axes", "points", "message"),
    [
        ({"a": []}, None, "at least one value"),
        ({"a": "mixed"}, None, "expected a list"),
        ({"a": 3}, None, "expected a list"),
        ({"a": {"b": 1}}, None, "expected a list"),
        ([1], None, "expected axes as a mapping"),
        (None, [3], "expected a cell as a mapping"),
        ({"a": [float("nan")]}, None, "finite"),
    ],
)
def test_refused(axes: Any, points: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Axes(axes, points)


def test_values_as_json() -> None:
    assert plain([1, (2.5, None), {"a": True}]) == [1, [2.5, None], {"a": True}]
    assert plain(tr.scorers.DiagAttn("mean")) == "DiagAttn(aggregate='mean')"
    assert plain(np) == str(np)
