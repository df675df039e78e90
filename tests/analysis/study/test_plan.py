"""Plans: checked, in order, each result once."""

from typing import Any

import pytest

import tokenred as tr
from tests.analysis.study.conftest import MakeGrid
from tests.analysis.study.stubs import row
from tokenred.analysis.study.store import Store
from tokenred.core.errors import ConfigError, ScheduleError, TokenredError, UnknownNameError
from tokenred.strategies.specs import parse_spec


def test_cells_with_the_same_result_are_one_result(make_grid: MakeGrid) -> None:
    plan = make_grid({"graph": ["mixed", "none"], "M": [4, 8], "P": [2, 2]}).plan()
    assert [cell.position for cell in plan.cells] == list(range(8))
    assert (len(plan), len(plan.results)) == (8, 3)
    keys = [cell.key for cell in plan.cells]
    assert keys[4] == keys[6]  # none with M of 4 and of 8
    assert keys[0] == keys[1] != keys[2]


def test_a_plan_of_a_plan(make_grid: MakeGrid) -> None:
    grid = make_grid({"alpha": [0.1, 0.2], "scorer.aggregate": ["max", "mean"]}, budget=0.7)
    plan = grid.plan()
    for cell in plan.cells:
        assert cell.strategy is not None
        assert cell.fingerprint == cell.strategy.fingerprint()
        assert plan.cost(cell).gmacs <= 0.7 * 0.0643
    assert plan.cells[3].label == "gtp:P=6,alpha=0.2,scorer=MixedAttn(aggregate=mean)@0.7"
    assert plan.cells[3].axes == {"alpha": 0.2, "scorer.aggregate": "mean"}


def test_a_label_is_what_a_command_takes(make_grid: MakeGrid) -> None:
    axes = {
        "scorer": ["DiagAttn", tr.scorers.MixedAttn("mean"), tr.selectors.EnergyMatching()],
        "graph": ["none", tr.graphs.Mixed(M=3)], "M": [4], "alpha": [0.1, (0.2,) * 8],
        "aggregate": ["max"], "score_mods": [[], [tr.score_mods.PolicyMask()]],
    }  # fmt: skip
    for cell in make_grid(axes, base="gtp:P=6,reference=true"):
        assert parse_spec(cell.label).strategy == cell.strategy, cell.label
    (cell,) = make_grid({"scorer.seed": [3]}, base="topk:scorer=Random")
    assert cell.label == "topk:scorer=Random(seed=3)"


def test_a_cell_that_cannot_be_is_named(make_grid: MakeGrid) -> None:
    with pytest.raises(ScheduleError, match=r"cell 1, gtp:P=20: .*block 3"):
        make_grid({"P": [4, 20]}).plan()
    with pytest.raises(ConfigError, match=r"cell 0, .*alpha"):
        make_grid({"alpha": [-1]}).plan()
    with pytest.raises(ScheduleError, match=r"the reference, gtp:P=60"):
        make_grid({"P": [4]}, base="gtp:P=60", against="base").plan()
    with pytest.raises(TokenredError, match=r"cell 1, .*multiples of the patch"):
        make_grid({"image_size": [40, 41]}).plan()


def test_or_left_out(make_grid: MakeGrid, store: Store) -> None:
    axes = {"P": [4, 20, 30], "alpha": [0.1, -1], "image_size": [None, 25]}
    plan = make_grid(axes, invalid="skip").plan()
    assert [cell.error is None for cell in plan.cells] == [True] + [False] * 11
    assert plan.cells[2].why.startswith("ScheduleError: ")
    assert plan.cells[6].why.startswith("InputError: ")
    missing = plan.todo(store)[0]
    assert [cell.error is None for cell in missing].count(True) == 1
    # A mistyped name is none of these.
    with pytest.raises(UnknownNameError):
        make_grid(model="vit_tinny_patch16_224", invalid="skip").plan()


def test_references(make_grid: MakeGrid) -> None:
    axes = {"seed": [0, 1], "alpha": [0.1, 0.2], "base": ["gtp", "tome:r=3"]}
    dense = make_grid(axes, against="dense").plan()
    found = {cell.key for cell in dense.references}
    assert {cell.reference for cell in dense.cells} == found
    assert len(found) == 2  # one a seed
    assert {cell.label for cell in dense.references} == {"dense"}
    base = make_grid(axes, against="base").plan()
    assert sorted(cell.label for cell in base.references) == ["gtp"] * 2 + ["tome:r=3"] * 2
    assert make_grid(axes).plan().references == []
    base = make_grid({"alpha": [0.1]}, against="base", budget=0.5).plan()
    assert base.references[0].label == "gtp:P=6@0.5"
    plan = make_grid({"base": ["dense", "gtp:P=4"]}, against="dense").plan()
    assert plan.cells[0].key == plan.cells[1].reference  # a reference may be a cell
    assert len(plan.results) == 2


def test_a_reference_has_the_budget_of_its_cells_unless_it_has_its_own(make_grid: MakeGrid) -> None:
    bases = {"base": ["tome", "topk"]}

    def told(against: Any, axes: dict[str, list[Any]], **options: Any) -> dict[str, str]:
        plan = make_grid(axes, against=against, **options).plan()
        names = {cell.key: cell.label for cell in plan.references}
        return {cell.label: names[cell.reference] for cell in plan.cells if cell.reference}

    fixed, varied = {"budget": 0.5}, {"budget": [0.5, 0.7]}
    assert set(told("gtp", bases, **fixed).values()) == {"gtp@0.5"}
    assert set(told("gtp@0.6", bases, **fixed).values()) == {"gtp@0.6"}
    for name, other in told("gtp", bases | varied).items():
        assert other == f"gtp@{name[-3:]}"
    assert set(told("gtp@0.6", bases | varied).values()) == {"gtp@0.6"}
    assert told("gtp", {"base": ["tome@0.6", "topk@0.7"]}) == {
        "tome@0.6": "gtp@0.6", "topk@0.7": "gtp@0.7",
    }  # fmt: skip
    assert set(told("base", {"alpha": [0.1]} | varied, base="gtp").values()) == {
        "gtp@0.5", "gtp@0.7",
    }  # fmt: skip
    assert set(told("dense", bases | varied).values()) == {"dense"}
    with pytest.raises(ConfigError, match="compared with itself"):
        make_grid(varied, base="gtp", against="base")


def test_another_model_as_the_reference(make_grid: MakeGrid) -> None:
    other = {"spec": "digits", "pretrained": False}
    grid = make_grid({"model": ["digits", other]}, against="dense", reference=other)
    (reference,) = grid.plan().references
    assert {cell.reference for cell in grid} == {reference.key}


def test_what_is_to_do(make_grid: MakeGrid, store: Store) -> None:
    plan = make_grid({"alpha": [0.1, 0.2, 0.3]}).plan()
    keys = [cell.key for cell in plan.cells]
    store.write([row(keys[0]), row(keys[1], status="failed")])
    assert [cell.key for cell in plan.todo(store)[0]] == keys[2:]
    assert [cell.key for cell in plan.todo(store, retry_failed=True)[0]] == keys[1:]
    store.write([row(keys[2], status="skipped")])  # it was left out, and can be done now
    assert [cell.key for cell in plan.todo(store)[0]] == keys[2:]


def test_a_dry_run(make_grid: MakeGrid, store: Store) -> None:
    grid = make_grid({"P": [4, 30], "M": [4, 8]}, invalid="skip", base="gtp:graph=none")
    (first, *_) = grid
    store.write([row(first.key)])
    frame = grid.dry_run(store)
    assert frame["status"].tolist() == ["done", "done", "skipped", "skipped"]
    assert grid.dry_run()["status"].tolist() == ["to do", "repeated", "skipped", "skipped"]
    assert frame["gmacs"][0] == pytest.approx(0.0472, abs=1e-4)
    assert frame["tokens"][0] == tuple(64 - 4 * i for i in range(9))
    assert frame["why"][2].startswith("ScheduleError")
    assert len(store) == 1
