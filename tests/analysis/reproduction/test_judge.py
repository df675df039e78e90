"""Verdicts, on figures and on whole experiments whose results are known."""

import pytest

from tests.analysis.reproduction.parts import IMAGES, make_part
from tokenred.analysis import Reproduction
from tokenred.analysis.reproduction.judge import DIFFERS, MEASURED, REPRODUCED, Part, judge


@pytest.mark.parametrize(
    ("metric", "ours", "published", "options", "mark"),
    [
        ("gmacs", 3.56, 3.4, {}, REPRODUCED),
        ("gmacs", 3.57, 3.4, {}, DIFFERS),
        ("gmacs", 13.33, 13.1, {}, DIFFERS),
        ("top1", 79.2, 79.5, {}, REPRODUCED),
        ("top1", 79.19, 79.5, {}, DIFFERS),
        ("top1", 79.81, 79.5, {}, DIFFERS),
        ("loss", -0.6, -0.3, {}, REPRODUCED),
        ("loss", 0.1, -0.3, {}, DIFFERS),
        ("speedup", 1.2, 1.3, {}, MEASURED),
        ("top1", 79.5, None, {}, MEASURED),
        # A part of the images widens accuracies only; the cost of a group is coarser.
        ("top1", 81.0, 79.5, {"sampling": 1.2}, REPRODUCED),
        ("top1", 81.01, 79.5, {"sampling": 1.2}, DIFFERS),
        ("gmacs", 4.0, 3.4, {"sampling": 1.2}, DIFFERS),
        ("gmacs", 13.33, 13.1, {"group": True}, REPRODUCED),
        ("gmacs", 13.41, 13.1, {"group": True}, DIFFERS),
    ],
)
def test_verdicts(metric, ours, published, options, mark) -> None:  # type: ignore[no-untyped-def]
    assert judge(metric, ours, published, **options)[0] == mark


def _done(part: Part, images: int = IMAGES) -> Reproduction:
    return Reproduction((part,), None, images)


@pytest.mark.parametrize("name", ["table1", "table2", "table4", "table5", "table6", "table7"])
def test_the_published_figures_are_reproduced(name: str) -> None:
    done = _done(make_part(name))
    assert set(done.frame["verdict"]) <= {"✓", "not run", "–"}
    assert (done.frame["verdict"] == "✓").sum() >= 16
    assert done.differing.empty


def test_others_are_not_and_fewer_images_say_less() -> None:
    part = make_part("table1", off=-0.5)
    done = _done(part)
    assert set(done.differing["metric"]) == {"top1", "loss"}
    assert part.counts == {"✓": 15, "✗": 29, "not run": 0, "–": 0}
    assert "29" in str(done)
    few = _done(make_part("table1", off=-0.5, images=1000), images=1000)
    losses = few.frame[few.frame["metric"] == "loss"]
    # The interval reaches a point either way.
    assert losses["tolerance"].tolist() == pytest.approx([1.3] * 14)
    assert set(losses["verdict"]) == {"✓"}
    assert "1000 images" in str(few)


def test_of_several_cells_the_best_counts() -> None:
    frame = _done(make_part("table5")).frame
    best = frame[frame["strategy"].str.contains("best") & (frame["metric"] == "top1")]
    assert (best["ours"] == best["published"]).all()
    assert len(best) == 4


def test_a_failed_cell_is_missing_and_a_drawn_experiment_judges_nothing() -> None:
    frame = _done(make_part("table6", status="failed", error="no memory")).frame
    assert set(frame["verdict"]) == {"not run"}
    assert set(frame["why"]) == {"no memory"}
    assert set(_done(make_part("figure1", off=-5)).frame["verdict"]) == {"–"}
