"""A grid, read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import tokenred as tr
from tests.analysis.study.conftest import MakeGrid
from tokenred.core.errors import ConfigError, TokenredError, UnknownNameError


def test_settings(make_grid: MakeGrid, digits: nn.Module) -> None:
    axes = {"model": ["digits", digits], "seed": [0, 3], "dtype": [None, torch.bfloat16]}
    design = make_grid(axes, limit=5)._design
    found = [design.setting(design.axes.at(i) or {}) for i in range(8)]
    assert len({design.models[s.model].label for s in found}) == 2
    assert {s.seed for s in found} == {0, 3}
    assert {s.dtype for s in found} == {None, "bfloat16"}
    assert {s.limit for s in found} == {5}
    # The default and the axis name the same model, which is listed once.
    assert len(design.models) == 2


def test_bases(make_grid: MakeGrid) -> None:
    design = make_grid({"base": ["gtp", "tome@0.7"], "budget": [0.6, None]}, budget=0.5)._design
    found = [design.axes.at(i) or {} for i in range(4)]
    assert [design.base(point).label for point in found] == ["gtp", "gtp", "tome", "tome"]
    assert [design.budget(point) for point in found] == [0.6, None, 0.6, None]
    assert design.budget({}) == 0.5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": None}, ConfigError, "expected model="),
        ({"base": None}, ConfigError, "expected base="),
        ({"data": None}, ConfigError, "needs images"),
        ({"limit": 0}, ConfigError, "limit"),
        ({"limit": 2.5}, ConfigError, "limit"),
        ({"seed": -1}, ConfigError, "seed"),
        ({"seed": True}, ConfigError, "seed"),
        ({"dtype": "half"}, ConfigError, "dtype"),
        ({"budget": 1.5}, ConfigError, "budget"),
        ({"axes": {"budget": [0]}}, ConfigError, "budget"),
        ({"against": "the rest"}, UnknownNameError, "reference"),
        ({"metrics": ["acuracy"]}, UnknownNameError, "Did you mean 'accuracy'"),
        ({"axes": {"seed": ["a"]}}, ConfigError, "seed"),
        ({"axes": {"scorer": [{"name": "Nothing"}]}}, UnknownNameError, "scorer"),
        ({"batch_size": 0}, ConfigError, "batch_size"),
        ({"invalid": "ignore"}, ConfigError, "invalid"),
        ({"data": torch.utils.data.DataLoader([1])}, ConfigError, "loader"),
    ],
)
def test_refused(
    make_grid: MakeGrid, options: dict[str, Any], error: type[TokenredError], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_grid(**options)


def test_only_what_is_asked_for_needs_images(make_grid: MakeGrid) -> None:
    def count(model: tr.ReducedViT, data: None, context: object) -> dict[str, int]:
        return {"parameters": sum(p.numel() for p in model.parameters())}

    (row,) = make_grid(data=None, metrics=[count]).run(progress=False).records
    assert row["status"] == "done", row["error"]
    assert row["parameters"] > 1000
    assert row["data"] == ""
