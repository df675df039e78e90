"""The figures that a frame supports."""

from __future__ import annotations

import base64
from pathlib import Path

import pandas as pd
import pytest

from tokenred.analysis.reporting import pictures
from tokenred.analysis.reporting.pictures import pictures_of
from tokenred.analysis.reporting.sources import Source, read_source


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The titles of a source's figures, all of them drawn, none of them packed."""

    def draw(source: Source) -> list[str]:
        found = list(pictures._drawings(source))
        for drawing in found:
            assert drawing.alt
            assert drawing.draw().axes
        return [drawing.title for drawing in found]

    return draw


def test_of_a_study(store: Path, titles) -> None:  # type: ignore[no-untyped-def]
    found = titles(read_source(store))
    assert found == ["Accuracy against GMACs", "Along α", "Along P", "P by α"]


def test_of_others(comparison, sweep, curves, titles) -> None:  # type: ignore[no-untyped-def]
    assert titles(read_source(comparison)) == ["Accuracy against GMACs"]
    timed = comparison.assign(images_per_second=[100.0, 150.0, 130.0])
    assert titles(read_source(timed))[1] == "Accuracy against measured speed"
    assert titles(read_source(sweep)) == ["Where each method starts to pay"]
    assert titles(read_source(curves)) == ["How alike the tokens are after each block"]


def test_models_are_not_mixed(comparison: pd.DataFrame, titles) -> None:  # type: ignore[no-untyped-def]
    both = pd.concat([comparison, comparison.assign(model="other")])
    assert titles(read_source(both)) == [
        "Accuracy against GMACs (ViT)", "Accuracy against GMACs (other)"
    ]  # fmt: skip


def test_of_many_cells_at_one_cost_the_best_is_drawn() -> None:
    rows = [
        {"alpha": a, "M": m, "P": p, "strategy": f"{a}{m}{p}", "method": "gtp", "gmacs": 5.0 - p,
         "top1": 70 + a + m - p}
        for a in (0.1, 0.2) for m in (4, 8) for p in (1, 2)
    ]  # fmt: skip
    hue, drawn, note = pictures._lines(pd.DataFrame(rows), ("alpha", "M", "P"))
    assert hue == "method"
    assert drawn["top1"].tolist() == [76.2, 77.2]
    assert "most accurate" in note
    hue, drawn, note = pictures._lines(pd.DataFrame(rows), ("alpha", "P"))
    assert (hue, len(drawn), note) == ("alpha", 8, "")


def test_pictures_are_in_the_page_or_told_of(curves: pd.DataFrame) -> None:
    (picture,), left_out = pictures_of(read_source(curves))
    assert left_out == ()
    kind, _, content = picture.uri.partition(";base64,")
    assert kind == "data:image/svg+xml"
    assert b"<svg" in base64.b64decode(content)
    nothing = curves.assign(statistic="unknown")
    found, (line,) = pictures_of(read_source(nothing))
    assert found == ()
    assert line.startswith("Not drawn: How alike")


def test_heavy_pictures_become_dots(curves, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(pictures, "_MOST_BYTES", 10)
    (picture,), _ = pictures_of(read_source(curves))
    assert picture.uri.startswith("data:image/png;base64,")
