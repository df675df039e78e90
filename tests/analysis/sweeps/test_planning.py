"""What cannot run is known, with the reason, before anything runs."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

import tokenred as tr
from tokenred.analysis.sweeps import planning
from tokenred.analysis.sweeps.cells import Cell
from tokenred.analysis.sweeps.planning import make_plan
from tokenred.core.errors import UnknownNameError
from tokenred.strategies.specs import parse_spec

CELL = Cell("digits", parse_spec("gtp:P=4"), 8)


def test_sizes_are_filled_in_and_each_cell_comes_once() -> None:
    other = replace(CELL, image_size=(64, 64), batch_size=2)
    plan = make_plan([CELL, replace(CELL, image_size=(32, 32)), other])
    assert plan.cells == (replace(CELL, image_size=(32, 32)), other)
    assert plan.refused == ()
    digits = tr.models.load_model("digits")
    pair = tr.gmacs(digits) + tr.gmacs(tr.wrap(digits, CELL.spec.strategy))
    assert plan.weights[0] == pytest.approx(8 * pair)
    assert plan.weights[1] > 2 * pair


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (replace(CELL, image_size=(33, 32)), "multiples of the patch"),
        (replace(CELL, spec=parse_spec("gtp:P=9")), "block"),
        (replace(CELL, image_size=(16, 16)), "block"),  # 16 tokens, four a block
        (replace(CELL, device="no-such"), "expected a device of this machine"),
        (replace(CELL, model="resnet18", image_size=(32, 32)), "ResNet"),
    ],
)
def test_refused_with_a_reason(cell: Cell, reason: str) -> None:
    plan = make_plan([CELL, cell])
    assert len(plan.cells) == 1
    ((found, why),) = plan.refused
    assert (found.model, found.spec) == (cell.model, cell.spec)
    assert reason in why
    assert "\n" not in why


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    plan = make_plan([CELL, replace(CELL, compile=True)])
    assert len(plan.cells) == 1
    assert "C++ compiler" in plan.refused[0][1]


def test_a_name_that_is_no_model_stops_everything() -> None:
    with pytest.raises(UnknownNameError, match="unknown model"):
        make_plan([CELL, replace(CELL, model="vit_tinny")])


def test_models_are_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    real = planning.build_model
    monkeypatch.setattr(planning, "build_model", lambda name: built.append(name) or real(name))
    make_plan([replace(CELL, batch_size=b, image_size=s) for b in (1, 2) for s in (None, (64, 64))])
    assert built == ["digits"]
