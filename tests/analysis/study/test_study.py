"""What a grid gives back."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.analysis.study.conftest import MakeGrid
from tokenred.analysis import metric_lines
from tokenred.analysis.measure.intervals import paired_difference
from tokenred.analysis.study.store import Store
from tokenred.core.errors import OutputExistsError, UnknownNameError
from tokenred.data import open_dataset


def test_frame_has_a_row_for_each_cell(make_grid: MakeGrid, store: Store, tmp_path: Path) -> None:
    study = make_grid({"graph": ["none"], "M": [4, 8]}).run(store, progress=False)
    assert study.frame["M"].tolist() == [4, 8]
    assert study.frame["key"].nunique() == 1
    assert len(store.frame()) == 1
    assert list(study.frame.columns[:3]) == ["graph", "M", "strategy"]
    assert {"gmacs", "overhead_gmacs", "tokens", "images", "top1", "top5", "status", "error",
            "seconds", "fingerprint", "torch", "timm", "tokenred", "commit"} <= set(
                study.frame.columns)  # fmt: skip
    assert study.footnotes()[0].startswith("2 cells, 1 distinct; 10 images of")
    # Only what varies is shown.
    assert str(study.table().columns[0].header) == "M"
    one = make_grid({"graph": ["none"]}).run(store, progress=False)
    assert str(one.table().columns[0].header) == "strategy"
    two = make_grid({"graph": ["spatial", "none"]}).run(store, progress=False)
    assert {str(cell) for cell in two.table().columns[0].cells} == {"spatial", "none"}
    path = study.to_csv(tmp_path / "a.csv")
    assert pd.read_csv(path)["M"].tolist() == [4, 8]
    with pytest.raises(OutputExistsError):
        study.to_csv(path)


GAP = ("difference", "difference_low", "difference_high", "p_value")


def test_differences_are_paired(make_grid: MakeGrid, store: Store) -> None:
    grid = make_grid({"base": ["random", "gtp"], "budget": [0.51]}, against="dense", limit=30)
    study = grid.run(store, progress=False, level=0.9)
    (reference,) = study.references
    for row in study.records:
        own, other = store.predictions(row["key"]), store.predictions(reference["key"])
        gap = paired_difference(own.correct, other.correct, 0.9)
        assert row["difference"] == pytest.approx(100 * gap.difference)
        assert (row["difference_from"], row["difference_level"]) == ("dense", 0.9)
        assert row["difference_low"] == pytest.approx(100 * gap.low)
        assert row["top1"] - reference["top1"] == pytest.approx(row["difference"])
        assert (row["key"], reference["key"]) in store.comparisons(0.9)
    text = str(study)
    heading = ("difference from dense", "points [90% paired]")
    for words in ("(dense)", *heading, "random", "Stored in"):
        assert words in text


def test_the_base_is_marked_where_it_is_a_cell_too(make_grid: MakeGrid, store: Store) -> None:
    grid = make_grid({"alpha": [0.1, 0.2]}, base="gtp:P=6,alpha=0.1", against="base", limit=20)
    study = grid.run(store, progress=False)
    assert _column(study, "alpha") == ["0.1 (base)", "0.2"]
    assert _column(study, "difference from base\npoints [95% paired]")[0] == ""
    own, other = study.frame.to_dict("records")
    assert own["difference_from"] == other["difference_from"] == "gtp:P=6,alpha=0.1"
    assert np.isnan([own[name] for name in GAP]).all()
    assert np.isfinite([other[name] for name in GAP]).all()
    assert "What 20 images can tell: the 95% intervals are" in str(study)


def test_a_reference_shows_its_own_part(make_grid: MakeGrid, store: Store) -> None:
    grid = make_grid({"scorer": ["CLSAttn", "DiagAttn"]}, base="topk@0.65", against="base")
    study = grid.run(store, progress=False)
    assert _column(study, "scorer")[0].startswith("CLSAttn")


def test_a_dense_model_at_chance_is_told(make_grid: MakeGrid) -> None:
    other = open_dataset("digits")
    other.labels = tuple((label + 1) % 10 for label in other.labels)
    wrong, right = (
        make_grid({"P": [4]}, data=data, against="dense").run(progress=False)
        for data in (other, "digits")
    )
    (line,) = wrong.doubts()
    assert "no more than a guess among their 10 classes" in line
    assert line in wrong.footnotes()
    assert right.doubts() == []


def test_differences_from_any_strategy(make_grid: MakeGrid, store: Store) -> None:
    study = make_grid({"base": ["gtp", "tome@0.65"]}, against="tome@0.65").run(
        store, progress=False
    )
    assert _column(study, "base") == ["tome (reference)", "gtp"]
    assert "difference from tome@0.65" in str(study)
    assert "difference" not in study.records[1]
    gap = study.records[0]["top1"] - study.records[1]["top1"]
    assert study.records[0]["difference"] == pytest.approx(gap)


def test_the_frame_has_the_reference_that_is_no_cell(
    make_grid: MakeGrid, store: Store, tmp_path: Path
) -> None:
    grid = make_grid({"base": ["gtp", "tome"]}, against="gtp:scorer=CLSAttn", budget=0.65)
    path = grid.run(store, progress=False).to_csv(tmp_path / "a.csv")
    frame = pd.read_csv(path)
    assert frame["strategy"].tolist() == ["gtp:scorer=CLSAttn@0.65", "gtp@0.65", "tome@0.65"]
    assert frame["base"].fillna("").tolist() == ["", "gtp", "tome"]
    assert frame["difference_from"].tolist() == ["gtp:scorer=CLSAttn@0.65"] * 3
    assert frame["difference"].isna().tolist() == [True, False, False]
    assert frame["top1"].notna().all()


def test_whole_numbers_stay_whole_beside_a_reference(
    make_grid: MakeGrid, store: Store, tmp_path: Path
) -> None:
    study = make_grid({"P": [3, 4], "alpha": [0.1]}, against="tome", limit=10).run(
        store, progress=False
    )
    lines = study.to_csv(tmp_path / "a.csv").read_text().splitlines()
    assert [line[:6] for line in lines[1:]] == [",,tome", "3,0.1,", "4,0.1,"]
    (axes,) = metric_lines(study, "P", "difference").axes
    assert axes.get_ylabel() == "top-1 Δ vs. ToMe (percentage points)"


def test_dense_models_of_several_seeds_are_named(make_grid: MakeGrid, store: Store) -> None:
    study = make_grid({"seed": [0, 1]}, against="dense", limit=20).run(store, progress=False)
    assert _column(study, "seed")[:2] == ["0 (dense)", "1 (dense)"]


def test_figures_and_a_csv_have_the_dense_model(
    make_grid: MakeGrid, store: Store, tmp_path: Path
) -> None:
    study = make_grid({"alpha": [0.1, 0.2]}, against="dense", limit=20).run(store, progress=False)
    assert study.frame["method"].tolist() == ["gtp", "gtp"]
    written = pd.read_csv(study.to_csv(tmp_path / "study.csv"))
    for frame in (study.with_references, written):
        assert frame["method"].tolist() == ["dense", "gtp", "gtp"]
        assert frame["difference"].notna().tolist() == [False, True, True]
    for source in (study, tmp_path / "study.csv"):
        (axes,) = metric_lines(source, "alpha").axes
        assert "dense" in [text.get_text() for text in axes.texts]
    alone = make_grid({"alpha": [0.1]}, against=None, limit=20).run(store, progress=False)
    assert len(alone.with_references) == 1


def test_cells_are_compared_at_their_budget(make_grid: MakeGrid, store: Store) -> None:
    axes = {"base": ["tome", "topk"], "budget": [0.5, 0.8]}
    study = make_grid(axes, against="gtp", limit=20).run(store, progress=False)
    assert study.against == "gtp at the same budget"
    assert _column(study, "base")[:2] == ["(gtp@0.5)", "(gtp@0.8)"]
    budgets = _column(study, "budget")
    assert budgets[:2] == ["0.5", "0.8"]
    heading = "difference from gtp at the same budget\npoints [95% paired]"
    assert _column(study, heading)[:2] == ["", ""]
    frame = study.with_references.set_index("strategy")
    assert frame["difference_from"].to_dict() == {
        f"{name}@{share}": f"gtp@{share}"
        for name in ("gtp", "tome", "topk")
        for share in (0.5, 0.8)
    }
    for share in (0.5, 0.8):
        own, other = (frame.loc[f"{name}@{share}"] for name in ("tome", "gtp"))
        assert own["difference"] == pytest.approx(own["top1"] - other["top1"])


def test_unequal_costs_are_told(make_grid: MakeGrid, store: Store) -> None:
    told = "times as much as gtp, so a difference is not that of the method alone"
    unequal = make_grid({"base": ["tome:r=2", "gtp:P=2"]}, against="gtp", limit=10)
    assert told in " ".join(str(unequal.run(store, progress=False)).split())
    equal = make_grid({"base": ["tome", "topk"]}, against="gtp", budget=0.6, limit=10)
    assert "times as much" not in str(equal.run(store, progress=False))
    dense = make_grid({"base": ["tome", "topk"]}, against="dense", limit=10)
    assert "times as much" not in str(dense.run(store, progress=False))


def test_the_best_of_many_cells_is_doubted_and_all_seeds_are_named(
    make_grid: MakeGrid, store: Store
) -> None:
    def score(model: Any, data: Any, context: Any) -> dict[str, Any]:
        return {"top1": float(model.strategy.fuser.alpha * 100)}

    def told(**axes: list[Any]) -> str:
        found = make_grid(axes, metrics=[score], limit=5).run(progress=False)
        return " ".join(str(found).split())

    many = told(alpha=[0.1, 0.2, 0.3], seed=[0, 1])
    assert "seed 0, 1;" in many
    assert "seed (4 different);" in told(seed=[0, 1, 2, 3])
    words = "on the same images probably looks better than it is"
    assert f"The best of 3 {words}" in told(alpha=[0.1, 0.2, 0.3])
    assert words not in told(alpha=[0.1, 0.2])


def test_an_empty_study(make_grid: MakeGrid, store: Store) -> None:
    study = make_grid({"alpha": [0.1]}, where=lambda point: False).run(store, progress=False)
    assert study.records == []
    assert study.frame.empty
    assert "0 cells" in str(study)


def _column(study: Any, name: str, **options: Any) -> list[str]:
    table = study.table(**options)
    (column,) = (c for c in table.columns if str(c.header) == name)
    return [str(cell) for cell in column.cells]


def test_the_best_come_first_and_failures_below(make_grid: MakeGrid, store: Store) -> None:
    def score(model: Any, data: Any, context: Any) -> dict[str, Any]:
        alpha = model.strategy.fuser.alpha
        if alpha > 0.35:
            raise ValueError("[no]")
        more = {f"metric_{i}": float(i) for i in range(6)}
        return {"top1": alpha, "cost": -alpha, "words": "text", "list": [1], **more}

    axes = {"alpha": [0.1, 0.3, 0.2, *(i / 10 for i in range(4, 10))]}
    study = make_grid(axes, metrics=[score]).run(store, progress=False)
    assert _column(study, "alpha") == ["0.3", "0.2", "0.1"]
    assert _column(study, "alpha", by="cost") == ["0.1", "0.2", "0.3"]
    assert _column(study, "alpha", most=2) == ["0.3", "0.2"]
    heads = [str(c.header) for c in study.table().columns]
    assert heads[:4] == ["alpha", "GMACs\nper image", "top-1\n%", "cost"]
    assert heads[4:] == ["metric 0", "metric 1", "metric 2"]
    with pytest.raises(UnknownNameError, match="column"):
        study.table("nothing")
    assert [row["status"] for row in study.records] == ["done"] * 3 + ["failed"] * 6
    assert "in score" in study.failed()[0]["traceback"]
    lines = study.footnotes()
    assert lines[0].startswith("9 cells, all distinct, 6 failed; model digits")
    told = r"failed: gtp:P=6,alpha=0.4: ValueError: \[no\] \(.*test_study.py, line \d+\)"
    assert re.fullmatch(told, lines[2])
    assert lines[7] == "and 1 more that failed or were skipped."
