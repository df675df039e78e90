"""Scorers as lines over budgets, or as rows at one."""

from __future__ import annotations

import pandas as pd
import pytest

from tokenred.analysis import scorer_comparison
from tokenred.core.errors import InputError

SCORERS = {"MixedAttn": 0.0, "DiagAttn": 1.0, "Random": -2.0}


@pytest.fixture
def study(grid: pd.DataFrame) -> pd.DataFrame:
    one = grid[(grid["alpha"] == 0.1) & (grid["M"] == 8)].drop(columns=["alpha", "M"])
    rows = [one.assign(top1=one["top1"] + extra, scorer=name) for name, extra in SCORERS.items()]
    frame = pd.concat(rows, ignore_index=True)
    return frame[["scorer", *one.columns]]


def test_lines_over_budgets_best_first(study: pd.DataFrame) -> None:
    figure = scorer_comparison(study)
    (axes,) = figure.axes
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["DiagAttn", "MixedAttn", "Random"]
    assert axes.get_xlabel() == "tokens removed in each block P"
    assert len([line for line in axes.lines if line.get_label() in SCORERS]) == 3


def test_rows_at_one_budget_best_on_top(study: pd.DataFrame) -> None:
    dense = pd.DataFrame([{"method": "dense", "top1": 75.0, "model": "ViT", "data": "digits"}])
    frame = pd.concat([study, dense])[list(study.columns)]
    figure = scorer_comparison(frame, fixed={"P": 3})
    (axes,) = figure.axes
    names = [t.get_text() for t in axes.get_yticklabels()]
    assert names == ["Random", "MixedAttn", "DiagAttn"]
    assert axes.get_xlabel() == "top-1 accuracy (%)"
    assert next(
        line for line in axes.lines if line.get_marker() == "o"
    ).get_xdata().tolist() == pytest.approx([67.0, 69.0, 70.0])
    assert "P=3" in figure.get_supxlabel()
    assert [t.get_text() for t in axes.texts] == ["dense"]


def test_refused(grid: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="needs the column scorer"):
        scorer_comparison(grid)
