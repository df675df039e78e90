"""From positions to cells."""

from __future__ import annotations

from typing import Any

import pytest

import tokenred as tr
from tests.analysis.study.conftest import MakeGrid
from tokenred.analysis.study.facts import Facts
from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.planner import Planner, RefusedError
from tokenred.core.errors import ScheduleError


def planner(grid: Grid) -> Planner:
    return Planner(grid._design, Facts(), {"batch_size": 64})


def test_a_cell_has_the_strategy_of_its_point(make_grid: MakeGrid) -> None:
    made = planner(make_grid({"alpha": [0.1, 0.2], "M": [4, 5]}, base="gtp:P=3"))
    cell = made.cell(2)
    assert cell is not None
    assert (cell.position, dict(cell.axes)) == (2, {"alpha": 0.2, "M": 4})
    assert cell.strategy == tr.strategy("gtp", P=3, alpha=0.2, M=4)
    assert cell.fingerprint == cell.strategy.fingerprint()
    assert cell.share is None


def test_a_cell_that_is_left_out(make_grid: MakeGrid) -> None:
    made = planner(make_grid({"alpha": [0.1, 0.2]}, where=lambda point: point["alpha"] > 0.1))
    assert made.cell(0) is None
    assert made.cell(1) is not None


def test_budgets(make_grid: MakeGrid, digits: Any) -> None:
    """That of an axis goes before the grid's, and that before the base's own."""
    bases = ["gtp@0.9", "tome"]
    made = planner(make_grid({"base": bases}, cells=[{"base": "gtp@0.9", "budget": 0.6}]))
    shares = [cell.share for cell in map(made.cell, range(3)) if cell]
    assert shares == [0.9, None, 0.6]
    third = made.cell(2)
    assert third is not None
    assert third.strategy is not None
    assert tr.gmacs(tr.wrap(digits, third.strategy)) <= 0.6 * tr.gmacs(digits)
    other = planner(make_grid({"base": ["gtp@0.9"]}, budget=0.7)).cell(0)
    assert other is not None
    assert other.share == 0.7


def test_the_dense_model_has_no_budget(make_grid: MakeGrid) -> None:
    cell = planner(make_grid({"base": ["dense", "gtp"]}, budget=0.7)).cell(0)
    assert cell is not None
    assert (cell.label, cell.share) == ("dense", None)


def test_references(make_grid: MakeGrid) -> None:
    axes = {"alpha": [0.1], "seed": [0, 1], "base": ["gtp:P=4"]}
    made = planner(make_grid(axes, against="dense"))
    first, second = (made.cell(i) for i in range(2))
    assert first is not None
    assert second is not None
    dense = made.reference(first)
    assert dense is not None
    # In the setting of the cell, without what changes its strategy.
    assert (dense.label, dict(dense.axes), dense.position) == ("dense", {"seed": 0}, -1)
    assert made.reference(second).key != dense.key  # type: ignore[union-attr]
    against_base = planner(make_grid(axes, against="base")).reference(first)
    assert against_base is not None
    assert against_base.strategy == tr.strategy("gtp", P=4)
    assert planner(make_grid(axes)).reference(first) is None


def test_a_refused_cell_says_which_it_is(make_grid: MakeGrid) -> None:
    made = planner(make_grid({"P": [30, 31]}, base="gtp"))
    with pytest.raises(RefusedError) as caught:
        made.cell(0)
    refused = caught.value
    assert refused.reason.startswith("ScheduleError: ")
    assert refused.cell.label == "gtp:P=30"
    named = refused.named("cell 0")
    assert isinstance(named, ScheduleError)
    assert str(named).startswith("cell 0, gtp:P=30: ")
    with pytest.raises(RefusedError) as other:
        made.cell(1)
    # Each has a key of its own, so that the store can say why it is missing.
    assert len(refused.cell.key) == 16
    assert other.value.cell.key != refused.cell.key


def test_a_plan_is_made_without_asking_twice(
    make_grid: MakeGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings, which stamp files, are looked up once for all their cells."""
    asked = []
    real = Facts.model

    def model(self: Facts, ref: Any) -> Any:
        asked.append(ref)
        return real(self, ref)

    monkeypatch.setattr(Facts, "model", model)
    made = planner(make_grid({"alpha": [i / 100 for i in range(50)]}))
    made.cell(0)
    before = len(asked)
    for position in range(1, 50):
        made.cell(position)
    assert len(asked) == before
