"""The figures that a frame supports."""

import base64

import pandas as pd
import pytest

from tokenred.analysis.reports.figures import embed, pictures_of
from tokenred.analysis.reports.source import read_source


def titles(source: object) -> list[str]:
    """The titles of the figures, all of which were drawn."""
    found, left_out = pictures_of(read_source(source))
    assert not left_out
    assert all(picture.alt and picture.uri for picture in found)
    return [picture.title for picture in found]


def test_each_kind_has_its_figures(comparison, sweep, curves) -> None:  # type: ignore[no-untyped-def]
    timed = comparison.assign(images_per_second=[100.0, 150.0, 130.0])
    assert titles(timed) == ["Accuracy against GMACs", "Accuracy against measured speed"]
    assert titles(sweep) == ["Where each method starts to pay off"]
    assert titles(curves) == ["Similarity of the tokens after each block"]


def test_models_are_not_mixed(comparison: pd.DataFrame) -> None:
    both = pd.concat([comparison, comparison.assign(model="other")])
    assert titles(both) == ["Accuracy against GMACs (ViT)", "Accuracy against GMACs (other)"]


@pytest.mark.parametrize(("m", "hue", "note"), [((4, 8), "method", True), ((4,), "alpha", False)])
def test_of_many_cells_at_one_cost_the_best_is_drawn(
    m: tuple[int, ...], hue: str, note: bool
) -> None:
    rows = [
        {"alpha": a, "M": n, "P": p, "strategy": f"{a}{n}{p}", "method": "gtp", "gmacs": 5.0 - p,
         "top1": 70 + a + n - p}
        for a in (0.1, 0.2) for n in m for p in (1, 2)
    ]  # fmt: skip
    (first, *_), _ = pictures_of(read_source(pd.DataFrame(rows)))
    assert f"hue={hue!r}" in first.made_by
    assert ("most accurate" in first.note) is note


def test_a_figure_that_cannot_be_drawn_is_told_of(curves: pd.DataFrame) -> None:
    found, (line,) = pictures_of(read_source(curves.assign(statistic="unknown")))
    assert found == []
    assert line.startswith("Not drawn: Similarity")


@pytest.mark.parametrize(("points", "kind"), [(3, "svg+xml"), (8_000, "png")])
def test_heavy_pictures_become_dots(points: int, kind: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot(range(points), [i * 7919 % 1000 for i in range(points)], "o")
    head, _, content = embed(figure).partition(";base64,")
    assert head == f"data:image/{kind}"
    assert (b"<svg" in base64.b64decode(content)) is (kind == "svg+xml")
