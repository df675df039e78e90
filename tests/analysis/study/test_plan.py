"""Plans: checked, in order, each result once, on disk."""

from __future__ import annotations

import json

import pytest

from tests.analysis.study.conftest import MakeGrid
from tests.analysis.study.stubs import row
from tokenred.analysis.study.store import Store
from tokenred.core.errors import ConfigError, ScheduleError


def test_cells_with_the_same_result_are_one_result(make_grid: MakeGrid) -> None:
    plan = make_grid({"graph": ["mixed", "none"], "M": [4, 8], "P": [2, 2]}).plan()
    cells = list(plan.cells())
    assert [position for position, _, _ in cells] == list(range(8))
    assert (len(plan), plan.results) == (8, 3)
    keys = [key for _, key, _ in cells]
    assert keys[4] == keys[6]  # none with M of 4 and of 8
    assert keys[0] == keys[1] != keys[2]


def test_all_that_determines_a_result_is_in_the_key(make_grid: MakeGrid) -> None:
    def key(**options: object) -> str:
        ((_, found, _),) = make_grid(**options).plan().cells()
        return found

    one = key()
    assert key() == one
    assert key(batch_size=3, device="cpu", name="other", image_cache=0, loaders=0) == one
    other = [
        key(base="gtp:P=5"),
        key(model={"spec": "digits", "pretrained": False}),
        key(model={"spec": "digits", "mean": (0.1,) * 3}),
        key(data={"source": "digits", "split": "train"}),
        key(limit=11),
        key(limit=None),
        key(seed=1),
        key(dtype="float64"),
        key(metrics=["accuracy", "speed"]),
        key(budget=0.7),
    ]
    assert len({one, *other}) == 11


def test_a_plan_of_a_plan(make_grid: MakeGrid) -> None:
    grid = make_grid({"alpha": [0.1, 0.2], "scorer.aggregate": ["max", "mean"]}, budget=0.7)
    plan = grid.plan()
    for position, key, _ in plan.cells():
        cell = plan.cell(position)
        assert (cell.position, cell.key) == (position, key)
        assert cell.strategy is not None
        assert cell.fingerprint == cell.strategy.fingerprint()
        assert plan.cost(cell).gmacs <= 0.7 * 0.0643
    assert plan.cell(3).label == "gtp:P=6,alpha=0.2,scorer.aggregate=mean@0.7"
    assert json.loads(plan.cell(3).axes_json) == {"alpha": 0.2, "scorer.aggregate": "mean"}


def test_a_cell_that_cannot_be_is_named(make_grid: MakeGrid) -> None:
    grid = make_grid({"P": [4, 20]})
    with pytest.raises(ScheduleError, match=r"cell 1, gtp:P=6,P=20: .*block 3"):
        grid.plan()
    with pytest.raises(ConfigError, match=r"cell 0, .*alpha"):
        make_grid({"alpha": [-1]}).plan()
    with pytest.raises(ScheduleError, match=r"the reference, gtp:P=60"):
        make_grid({"P": [4]}, base="gtp:P=60", against="base").plan()


def test_or_left_out(make_grid: MakeGrid, store: Store) -> None:
    plan = make_grid({"P": [4, 20, 30], "alpha": [0.1, -1]}, invalid="skip").plan()
    why = [reason for _, _, reason in plan.listed()]
    assert [reason is None for reason in why] == [True, False, False, False, False, False]
    assert str(why[2]).startswith("ScheduleError: ")
    assert plan.cell(1).strategy is None
    survey = plan.survey(store)
    assert (survey.todo, survey.leave_out) == (1, 5)


def test_where(make_grid: MakeGrid) -> None:
    grid = make_grid({"alpha": [0.1, 0.2, 0.3], "M": [4, 8]}, where=lambda c: c["alpha"] < 0.25)
    assert len(grid) == 6
    assert [c.axes["alpha"] for c in grid] == [0.1, 0.1, 0.2, 0.2]
    assert [position for position, _, _ in grid.plan().cells()] == [0, 1, 2, 3]


def test_references(make_grid: MakeGrid) -> None:
    axes = {"seed": [0, 1], "alpha": [0.1, 0.2], "base": ["gtp", "tome:r=3"]}
    dense = make_grid(axes, against="dense").plan()
    found = {reference for _, _, reference in dense.cells()}
    assert set(dense.reference_keys) == found
    assert len(found) == 2  # one a seed
    assert {dense.cell(p).base.label for p in (-1, -2)} == {"dense"}
    base = make_grid(axes, against="base").plan()
    assert len(base.reference_keys) == 4
    assert sorted({base.cell(p).label for p in (-1, -2, -3, -4)}) == ["gtp", "tome:r=3"]
    assert make_grid(axes).plan().reference_keys == []


def test_a_reference_may_be_a_cell(make_grid: MakeGrid) -> None:
    plan = make_grid({"base": ["dense", "gtp:P=4"]}, against="dense").plan()
    (first, _, reference), _ = plan.cells()
    assert plan.cell(first).key == reference
    assert plan.results == 2


def test_what_is_to_do(make_grid: MakeGrid, store: Store) -> None:
    plan = make_grid({"alpha": [0.1, 0.2, 0.3]}).plan()
    keys = [key for _, key, _ in plan.cells()]
    store.write([row(keys[0]), row(keys[1], status="failed")])
    assert [cell.key for cell, _ in plan.todo(store, retry_failed=False)] == keys[2:]
    assert [cell.key for cell, _ in plan.todo(store, retry_failed=True)] == keys[1:]
    assert (plan.survey(store).todo, plan.survey(store).stored) == (1, 2)
    assert (plan.survey(store, True).todo, plan.survey(store, True).stored) == (2, 1)


def test_what_was_left_out_and_can_be_done_now_is_done(make_grid: MakeGrid, store: Store) -> None:
    plan = make_grid({"alpha": [0.1]}).plan()
    ((_, key, _),) = plan.cells()
    store.write([row(key, status="skipped")])
    assert [cell.key for cell, _ in plan.todo(store, retry_failed=False)] == [key]


def test_a_result_that_two_grids_share_has_the_axes_of_both(
    make_grid: MakeGrid, store: Store
) -> None:
    plan = make_grid({"theta": [1.0], "alpha": [0.1]}).plan()
    ((_, key, _),) = plan.cells()
    store.write([row(key, axes='{"M": 8, "alpha": 0.1}')])
    assert plan.survey(store).narrow == 1
    plan.widen(store)
    assert plan.survey(store).narrow == 0
    (found,) = store.rows()
    assert found["axes"] == {"theta": 1.0, "M": 8, "alpha": 0.1}


def test_settings_stay_together(make_grid: MakeGrid) -> None:
    plan = make_grid({"alpha": [0.1, 0.2], "dtype": ["float32", "float64"]}).plan()
    assert [plan.cell(i).setting.dtype for i in range(4)] == ["float32"] * 2 + ["float64"] * 2


def test_thousands_of_cells(make_grid: MakeGrid, store: Store) -> None:
    axes = {"alpha": [i / 1000 for i in range(40)], "M": list(range(1, 31))}
    plan = make_grid(axes).plan()
    assert (len(plan), plan.results) == (1200, 1200)
    assert [position for position, _, _ in plan.cells()] == list(range(1200))
    assert plan.survey(store).todo == 1200
