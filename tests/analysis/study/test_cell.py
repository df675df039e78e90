"""How a cell is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

import tokenred as tr
from tokenred.analysis.study.bases import read_base
from tokenred.analysis.study.cell import Cell, Setting

SETTING = Setting(model=0, data=0, dtype=None, limit=None, seed=0)


def make(start: str, share: float | None = None, **axes: Any) -> Cell:
    return Cell(0, axes, read_base(start), share, SETTING, None, "", "")


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        (make("gtp"), "gtp"),
        (make("gtp", alpha=0.1, P=4), "gtp:alpha=0.1,P=4"),
        (make("gtp:P=4", alpha=0.1), "gtp:P=4,alpha=0.1"),
        (make("tome", share=0.65, budget=0.65), "tome@0.65"),
        (make("gtp", share=0.5, theta=0.8), "gtp:theta=0.8@0.5"),
        # What it runs on is said elsewhere, and nothing changes the dense model.
        (make("gtp", seed=3, limit=10, dtype="float64", P=2), "gtp:P=2"),
        (make("dense", alpha=0.1), "dense"),
        (make("gtp", alpha=(0.1, 0.2)), "gtp:alpha=[0.1,0.2]"),
    ],
)
def test_labels(cell: Cell, label: str) -> None:
    assert cell.label == label


def test_axes_as_json() -> None:
    cell = make("gtp", alpha=(0.1, 0.2), scorer=tr.scorers.DiagAttn("mean"), base=read_base("evit"))
    assert json.loads(cell.axes_json) == {
        "alpha": [0.1, 0.2], "scorer": "DiagAttn(aggregate='mean')", "base": "evit",
    }  # fmt: skip
