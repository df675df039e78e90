"""Verdicts on results that are known."""

from __future__ import annotations

from typing import Any

import pytest

from tokenred.analysis.reproduction.experiments import EXPERIMENTS
from tokenred.analysis.reproduction.pages import make_page
from tokenred.analysis.reproduction.points import points_of
from tokenred.analysis.reproduction.results import Part, Reproduction
from tokenred.analysis.reproduction.stands import Stand

IMAGES = 50_000


def _part(name: str, off: float = 0.0, **more: Any) -> Part:
    """An experiment whose every cell has the published figures, and ``off`` points more."""
    experiment = EXPERIMENTS[name]
    backbone = experiment.backbones[0]
    points = points_of(experiment, backbone)
    records = []
    for at, point in enumerate(points):
        rows = []
        for place, cell in enumerate(point.cells):
            row = {"method": cell["base"], "status": "done", "images": IMAGES}
            row |= {"key": f"{at}-{place}", "gmacs": point.published.get("gmacs", 1.0)}
            if "top1" in point.published:
                # Of several cells the best counts.
                row["top1"] = point.published["top1"] + off - place
            if "loss" in point.published:
                loss = point.published["loss"] + off - place
                row |= {"difference": loss, "difference_low": loss - 1, "difference_high": loss + 1}
            rows.append(row | more)
        records.append(tuple(rows))
    return Part(experiment, Stand(backbone, backbone, None), tuple(points), tuple(records))


def _done(part: Part, limit: int | None = None, available: int = IMAGES) -> Reproduction:
    return Reproduction((part,), None, limit, available)


@pytest.mark.parametrize("name", ["table1", "table2", "table4", "table5", "table6", "table7"])
def test_the_published_figures_are_reproduced(name: str) -> None:
    done = _done(_part(name))
    assert set(done.frame["verdict"]) <= {"✓", "owed", "–"}
    assert (done.frame["verdict"] == "✓").sum() >= 16
    assert done.differing.empty


def test_others_are_not() -> None:
    done = _done(_part("table1", off=-0.5))
    wrong = done.differing
    assert set(wrong["metric"]) == {"top1", "loss"}
    assert len(wrong) == 15 + 14
    (part,) = done.parts
    assert done.counts(part) == {"✓": 15, "✗": 29, "owed": 0, "–": 0}
    assert "29" in str(done)


def test_fewer_images_say_less() -> None:
    part = _part("table1", off=-0.5)
    few = _done(part, limit=1000)
    assert few.images == 1000
    losses = few.frame[few.frame["metric"] == "loss"]
    # The interval reaches a point either way.
    assert losses["tolerance"].tolist() == pytest.approx([1.3] * 14)
    assert set(losses["verdict"]) == {"✓"}
    assert "1000 images" in str(few)


def test_of_several_cells_the_best_counts() -> None:
    frame = _done(_part("table5")).frame
    best = frame[frame["strategy"].str.contains("best") & (frame["metric"] == "top1")]
    assert (best["ours"] == best["published"]).all()
    assert len(best) == 4


def test_a_failed_cell_is_owed_with_its_error() -> None:
    part = _part("table6", status="failed", error="no memory")
    frame = _done(part).frame
    assert set(frame["verdict"]) == {"owed"}
    assert set(frame["why"]) == {"no memory"}


def test_a_drawn_experiment_judges_nothing() -> None:
    frame = _done(_part("figure1", off=-5)).frame
    assert set(frame["verdict"]) == {"–"}


def test_the_page_names_what_is_owed() -> None:
    page = make_page(_done(_part("table2")))
    (section,) = [s for s in page.sections if s.anchor == "part-1"]
    ((_, commands),) = section.details
    assert "tokenred finetune" in commands
    marks = {v.mark for row in section.tables[0].rows for v in row.values}
    assert {"good", "owed"} <= marks
    assert section.pictures[0].note.startswith("Hollow")
