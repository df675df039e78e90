"""What the arguments of a grid mean: its points, in order, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import tokenred as tr
from tests.analysis.study.conftest import MakeGrid
from tokenred.analysis.study.refs import read_data, read_model
from tokenred.core.errors import ConfigError, PartError, UnknownNameError


def points(make_grid: MakeGrid, axes: Any = None, **options: Any) -> list[dict[str, Any]]:
    return [dict(cell.axes) for cell in make_grid(axes, **options)]


def test_the_cross_product_then_single_points(make_grid: MakeGrid) -> None:
    axes = {"P": [1, 2], "graph": (name for name in ("none", "mixed"))}
    grid = make_grid(axes, cells=[{"P": 3, "M": 4}, {}])
    assert len(grid) == 6
    assert [dict(cell.axes) for cell in grid] == [
        {"P": 1, "graph": "none"}, {"P": 1, "graph": "mixed"}, {"P": 2, "graph": "none"},
        {"P": 2, "graph": "mixed"}, {"P": 3, "M": 4}, {},
    ]  # fmt: skip
    assert points(make_grid) == points(make_grid, {}, cells=[]) == [{}]
    assert points(make_grid, cells=[{"P": 1}]) == [{"P": 1}]


def test_settings_vary_slowest(make_grid: MakeGrid) -> None:
    found = points(make_grid, {"alpha": [0.1, 0.2], "dtype": ["float32", "float64"], "seed": [0]})
    assert [list(point) for point in found] == [["alpha", "dtype", "seed"]] * 4
    assert [point["dtype"] for point in found] == ["float32"] * 2 + ["float64"] * 2


def test_where_sees_labels(make_grid: MakeGrid) -> None:
    seen = []

    def where(point: dict[str, Any]) -> bool:
        seen.append(point)
        return bool(point["alpha"] > 0.1)

    grid = make_grid({"base": ["tome", "gtp"], "alpha": [0.1, 0.2]}, where=where)
    cells = list(grid)
    assert len(grid) == 4
    assert [(cell.position, cell.axes["alpha"]) for cell in cells] == [(1, 0.2), (3, 0.2)]
    assert seen[2] == {"base": "gtp", "alpha": 0.1}


def test_numpy_numbers_become_pythons_own(make_grid: MakeGrid) -> None:
    rows = [np.full(8, 0.1)]
    found = points(
        make_grid, {"theta": np.linspace(0.5, 1, 2), "M": np.arange(1, 2), "alpha": rows}
    )
    assert [type(point["theta"]) for point in found] == [float, float]
    assert type(found[0]["M"]) is int
    assert found[0]["alpha"] == [0.1] * 8


def test_tables_describe_parts(make_grid: MakeGrid) -> None:
    table = {"name": "DiagAttn", "aggregate": "mean"}
    axes = {"scorer": [table], "score_mods": [[]], "model": [{"spec": "digits"}]}
    (cell,) = make_grid(axes)
    assert cell.strategy == tr.strategy("gtp", P=6, scorer=tr.scorers.DiagAttn("mean"))
    assert cell.label == "gtp:P=6,scorer=DiagAttn(aggregate=mean),score_mods=[]"


def test_a_part_or_a_base_on_an_axis_is_enough(make_grid: MakeGrid) -> None:
    axes = {"graph": ["none", "Semantic"], "M": [4]}
    one, two = make_grid(axes, base=tr.Strategy("DiagAttn"))
    assert one.strategy == tr.Strategy("DiagAttn")
    assert two.strategy == tr.Strategy("DiagAttn", graph=tr.graphs.Semantic(4))
    one, two = make_grid({"base": ["gtp:P=2", "evit"], "keep_rate": [0.5]})
    assert one.strategy == tr.strategy("gtp", P=2)
    assert two.strategy == tr.strategy("evit", keep_rate=0.5)


class Bare(tr.Scorer):
    power = 2.0  # no annotation


@pytest.mark.parametrize(
    ("base", "name", "message"),
    [
        ("gtp", "alfa", "Did you mean 'alpha'"),
        ("gtp", "keep_rate", "unknown axis"),
        ("gtp", "scorer.agregate", "unknown axis"),
        ("gtp", "nothing.alpha", "unknown axis"),
        ("gtp", "scorer.alpha", "unknown axis"),
        (tr.Strategy("DiagAttn"), "M", "unknown axis"),
        (tr.Strategy(Bare()), "power", "Write power: float = 2.0"),
    ],
)
def test_a_name_that_means_nothing(make_grid: MakeGrid, base: Any, name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        make_grid({name: [1]}, base=base)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"axes": {"P": []}}, ConfigError, "at least one value"),
        ({"axes": {"graph": "mixed"}}, ConfigError, "expected a list"),
        ({"axes": {"P": 3}}, ConfigError, "expected a list"),
        ({"axes": {"scorer": {"name": 1}}}, ConfigError, "expected a list"),
        ({"axes": [1]}, ConfigError, "axes"),
        ({"cells": [3]}, ConfigError, "mapping"),
        ({"axes": {"alpha": [float("nan")]}}, ConfigError, "finite"),
        ({"axes": {"limit": [0]}}, ConfigError, "limit"),
        ({"axes": {"batch_size": [0]}}, ConfigError, "batch_size"),
        ({"axes": {"image_size": [(1, 2, 3)]}}, ConfigError, "image_size"),
        ({"axes": {"compile": ["fast"]}}, ConfigError, "compile"),
        ({"model": None}, ConfigError, "expected model="),
        ({"model": 3}, ConfigError, "expected a model"),
        ({"data": 3}, ConfigError, "expected data"),
        ({"data": {"source": "digits", "limit": 3}}, ConfigError, "expected data"),
        ({"data": None}, ConfigError, "'accuracy' needs images"),
        ({"dtype": "float8"}, ConfigError, "dtype"),
        ({"dtype": "amp:float32"}, ConfigError, "dtype"),
        ({"against": "me"}, UnknownNameError, "against: unknown strategy 'me'"),
        ({"metrics": [{"name": "speed", "paris": 3}]}, UnknownNameError, "pairs"),
        ({"metrics": [{"pairs": 3}]}, ConfigError, "name"),
        ({"metrics": [{"name": "speed", "model": 1}]}, UnknownNameError, "model"),
        ({"metrics": ["sped"]}, UnknownNameError, "Did you mean 'speed'"),
        ({"metrics": [3]}, PartError, "a name, a table"),
        ({"invalid": "maybe"}, ConfigError, "invalid"),
    ],
)
def test_refused(
    make_grid: MakeGrid, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_grid(**options)


def test_data_on_an_axis_alone(make_grid: MakeGrid) -> None:
    assert len(make_grid({"data": ["digits"]}, data=None)) == 1


def test_labels_and_paths(
    digits: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKENRED_DATA", ".")
    (tmp_path / "images").mkdir()
    Path("w.safetensors").touch()
    assert read_model(tr.wrap(digits, "gtp")).label == "digits"
    assert read_model(nn.Linear(1, 1)).label == "Linear"
    ref = read_model({"spec": "vit_tiny_patch16_224", "checkpoint": "w.safetensors"})
    assert ref.label == "vit_tiny_patch16_224 (w)"
    # Another folder is no reason for another file.
    assert ref.arguments["checkpoint"] == str(tmp_path / "w.safetensors")
    data = read_data("./images", "val", None)
    assert (data.label, data.arguments["source"]) == ("images", str(tmp_path / "images"))
    train = read_data({"source": "digits", "split": "train"}, "val", None)
    assert train.arguments["split"] == "train"
    for given in ("cifar10", "cifar10:images/.."):
        data = read_data(given, None, None)
        assert (data.label, data.arguments["source"]) == ("cifar10", f"cifar10:{tmp_path}")
