"""The figure of an experiment."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from tokenred.analysis.reproduction.charts import drawing_of
from tokenred.analysis.reproduction.experiments import EXPERIMENTS
from tokenred.analysis.reproduction.points import Scale, points_of
from tokenred.analysis.reproduction.results import Part
from tokenred.analysis.reproduction.stands import Stand

ABOUT = {"model": "m", "data": "d", "weights": "w", "dtype": "float32", "images": 1000, "seed": 0}


def part(name: str, own: bool, finished: int | None = None, **more: Any) -> Part:
    """An experiment on its first backbone, or on another model in its place."""
    experiment = EXPERIMENTS[name]
    backbone = experiment.backbones[0]
    scale = Scale() if own else Scale(tokens=64, depth=8)
    points = points_of(experiment, backbone, scale)
    records, count = [], 0
    for point in points:
        rows = []
        for cell in point.cells:
            count += 1
            row = {**ABOUT, **cell, "method": cell["base"], "key": str(count), "status": "done"}
            row |= {"strategy": str(count), "gmacs": 1 + count / 50}
            if finished is None or count <= finished:
                row["top1"] = 70 + count % 7
            rows.append(row)
        records.append(tuple(rows))
    stand = Stand(backbone if own else "mine", backbone, None, scale)
    return Part(experiment, stand, tuple(points), tuple(records), **more)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("table1", "top-1"),
        ("figure5", "top-1 accuracy (%)"),
        ("appendix", "semantic neighbours M"),
    ],
)
def test_axes_say_what_they_are(name: str, label: str, own: bool) -> None:
    drawing = drawing_of(part(name, own))
    assert drawing is not None
    figure = drawing.draw()
    labels = [axes.get_xlabel() + axes.get_ylabel() for axes in figure.axes]
    assert any(label in text for text in labels)
    assert figure.get_figwidth() == pytest.approx(6.0)


@pytest.mark.parametrize("name", ["table4", "table5"])
def test_tables_stand_beside_the_published_ones(name: str) -> None:
    def words(own: bool) -> str:
        drawing = drawing_of(part(name, own))
        assert drawing is not None
        texts = [text.get_text() for axes in drawing.draw().axes for text in axes.texts]
        titles = [axes.get_title(loc="left") + axes.get_title() for axes in drawing.draw().axes]
        return " ".join([*texts, *titles])

    assert "published" in words(True)
    assert "published" not in words(False)


def test_published_points_are_explained() -> None:
    theirs, mine = (drawing_of(part("table1", own)) for own in (True, False))
    assert theirs is not None
    assert mine is not None
    assert theirs.note.startswith("Hollow, dotted: published")
    assert mine.note == ""
    legend = [t.get_text() for legend in theirs.draw().legends for t in legend.get_texts()]
    legend += [
        text.get_text() for axes in theirs.draw().axes if axes.get_legend()
        for text in axes.get_legend().get_texts()
    ]  # fmt: skip
    assert any("published" in text for text in legend)
    assert theirs.alt
    assert theirs.title == "GTP at every budget, off the shelf (Table 1), DeiT-S"


def test_nothing_to_draw() -> None:
    """One finished cell makes no figure."""
    assert drawing_of(part("table1", True, finished=1)) is None
    assert drawing_of(part("table1", True, finished=2)) is not None


def test_tokens_that_were_followed() -> None:
    rows = [
        {"strategy": name, "layer": layer, "statistic": "cosine", "mean": 0.5, "low": 0.4,
         "high": 0.6, "difference": 0.0, "difference_low": -0.1, "difference_high": 0.1,
         "tokens": 9, "gmacs": 1.0, "model": "m", "data": "d", "method": name, "images": 10}
        for name in ("dense", "gtp") for layer in range(3)
    ]  # fmt: skip
    drawing = drawing_of(part("figure6", False, follow=pd.DataFrame(rows)))
    assert drawing is not None
    assert len(drawing.draw().axes) == 2
    assert "smoothing_curves" in drawing.made_by
