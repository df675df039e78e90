"""The figure says what the frame says."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tokenred.analysis import read_published, tradeoff
from tokenred.analysis.plots.looks import looks_of, read_name
from tokenred.analysis.plots.published import GTP_PAPER
from tokenred.core.errors import ConfigError, InputError


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = [("dense", 4.0, 80.0, np.nan, np.nan)]
    rows += [(m, g, 80 - 2 / g - i, -2 / g - i - 1, -2 / g - i + 1)
             for i, m in enumerate(["gtp", "tome"]) for g in (2.0, 3.0)]  # fmt: skip
    columns = ["method", "gmacs", "top1", "difference_low", "difference_high"]
    return pd.DataFrame(rows, columns=columns)


def test_lines_bars_and_labels(frame: pd.DataFrame) -> None:
    figure = tradeoff(frame, title="ViT on data")
    (axes,) = figure.axes
    assert axes.get_title() == "ViT on data"
    assert axes.get_xlabel() == "cost per image (GMACs)"
    assert axes.get_ylabel() == "top-1 accuracy (%)"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["GTP-ViT", "ToMe", "dense"]
    drawn = [line for line in axes.lines if len(line.get_xdata()) == 2]
    heights = [sorted(map(float, line.get_ydata())) for line in drawn]
    for method in ("gtp", "tome"):
        assert sorted(frame.loc[frame["method"] == method, "top1"]) in heights
    ends = [segment[:, 1] for bars in axes.collections for segment in bars.get_segments()]
    assert sorted(map(tuple, np.round(ends, 6)))[0] == pytest.approx((77.0, 79.0))
    assert figure.get_figwidth() == 3.5


def test_bars_go_through_their_markers(frame: pd.DataFrame) -> None:
    (axes,) = tradeoff(frame.assign(gmacs=[4.0, 2.0, 3.0, 2.0, 3.01])).axes
    bars = sorted(segment[0, 0] for group in axes.collections for segment in group.get_segments())
    assert bars == [2.0, 2.0, 3.0, 3.01]
    points = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert (points["GTP-ViT"], points["ToMe"]) == ([2.0, 3.0], [2.0, 3.01])


@pytest.mark.parametrize("width", [3.5, 7.0])
@pytest.mark.parametrize("dpi", [100, 300])
def test_a_legend_of_long_names_is_complete(width: float, dpi: int) -> None:
    names = [f"topk:scorer=ValueNorm{i},proportional_attention=True@0.65" for i in range(3)]
    names += ["uniform@0.65", "resolution@0.65", "topk:scorer=ValueNorm@0.65", "mine@0.65"]
    names += ["gtp:P=8", "patchmerger:keep_rate=0.65", "dense"]
    frame = pd.DataFrame({"method": names, "gmacs": range(10), "top1": range(10)})
    figure = tradeoff(frame, width=width)
    figure.set_dpi(dpi)
    figure.draw_without_rendering()
    (axes,), (legend,) = figure.axes, figure.legends
    texts = legend.get_texts()
    assert sorted(" ".join(t.get_text().split()) for t in texts) == sorted(map(read_name, names))
    edges = [text.get_window_extent() for text in texts]
    assert all(figure.bbox.containsx(e.x0) and figure.bbox.containsx(e.x1) for e in edges)
    assert all(figure.bbox.containsy(e.y0) and figure.bbox.containsy(e.y1) for e in edges)
    assert len({round(edge.x0) for edge in edges}) == (1 if width == 3.5 else 3)
    drawn = axes.get_tightbbox()
    assert drawn is not None
    assert not drawn.overlaps(legend.get_window_extent())
    assert axes.bbox.width > 0.8 * figure.bbox.width
    assert axes.bbox.height > 2 * dpi


def test_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="top1"):
        tradeoff(frame.drop(columns="top1"))
    with pytest.raises(InputError, match="dense row"):
        tradeoff(frame[1:], relative=True)
    with pytest.raises(InputError, match="needs the column images_per_second"):
        tradeoff(frame, x="images_per_second")
    with pytest.raises(ConfigError, match="x as one of gmacs, images_per_second"):
        tradeoff(frame, x="ms")
    theirs = read_published(GTP_PAPER, table=2)
    with pytest.raises(InputError, match="no dense model"):
        tradeoff(frame, published=theirs, relative=True)
    with pytest.raises(InputError, match="finished rows"):
        tradeoff(frame.assign(top1=np.nan))


def test_a_study_without_dense_has_no_star(grid: pd.DataFrame) -> None:
    figure = tradeoff(grid, hue="M")
    (axes,), (legend,) = figure.axes, figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["4", "8"]
    # Binomial bars, one a cell.
    assert sum(len(bars.get_segments()) for bars in axes.collections) == len(grid)
    gap = grid["top1"] - 75
    paired = grid.assign(difference=gap, difference_low=gap - 1, difference_high=gap + 1)
    (axes,) = tradeoff(paired, hue="M").axes
    bars = [s[:, 1] for bars in axes.collections for s in bars.get_segments()]
    assert [high - low for low, high in bars] == pytest.approx([2.0] * len(grid))


def test_measured_speed_has_the_bars_of_the_speed_up(comparison: pd.DataFrame) -> None:
    (axes,) = tradeoff(comparison, x="images_per_second").axes
    assert axes.get_xlabel() == "measured throughput (images/s)"
    across = [s for bars in axes.collections for s in bars.get_segments() if s[0, 1] == s[1, 1]]
    assert sorted(map(tuple, [s[:, 0].round(6) for s in across])) == [
        (pytest.approx(2.9 / 3 * 100), pytest.approx(110)),
        (pytest.approx(2.9 / 3 * 100), pytest.approx(110)),
        (pytest.approx(145), pytest.approx(165)),
        (pytest.approx(145), pytest.approx(165)),
    ]


def test_relative_to_dense(comparison: pd.DataFrame) -> None:
    (axes,) = tradeoff(comparison, relative=True).axes
    assert axes.get_xlabel() == "cost per image (% of dense)"
    assert axes.get_ylabel() == "top-1 Δ vs. dense (points)"
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["dense"].get_xydata().tolist() == [[100, 0]]
    assert sorted(lines["GTP-ViT"].get_ydata()) == pytest.approx([-1, -2 / 3])
    (axes,) = tradeoff(comparison, x="images_per_second", relative=True).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert sorted(lines["GTP-ViT"].get_xdata()) == pytest.approx([1.0, 1.5])


def test_published_points_are_named_and_hollow(comparison: pd.DataFrame) -> None:
    theirs = read_published(GTP_PAPER, table=1, backbone="DeiT-S")
    figure = tradeoff(comparison, published=theirs, relative=True)
    (axes,) = figure.axes
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["GTP-ViT", "ToMe", "dense", "GTP-ViT, DeiT-S (published)"]
    lines = {line.get_label(): line for line in axes.lines}
    paper = lines["GTP-ViT, DeiT-S (published)"]
    assert len(paper.get_xdata()) == len(theirs)
    assert paper.get_markerfacecolor() == "white"
    assert paper.get_color() == lines["GTP-ViT"].get_color()
    assert max(paper.get_xdata()) == pytest.approx(100)
    speed = tradeoff(comparison, x="images_per_second", published=theirs)
    labels = [text.get_text() for text in speed.legends[0].get_texts()]
    assert labels[-1] == "GTP-ViT, DeiT-S on A6000 (published)"
    several = tradeoff(comparison, published=GTP_PAPER).legends[0].get_texts()
    names = [text.get_text() for text in several]
    assert {"GTP-ViT, DeiT-B (published)", "EViT, DeiT-S, fine-tuned (published)"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("x", "front"), [("gmacs", [79, 79 + 1 / 3, 80]), ("images_per_second", [80, 79 + 1 / 3, 79])]
)
def test_the_front_holds_what_no_other_beats(
    comparison: pd.DataFrame, x: str, front: list[float]
) -> None:
    comparison.loc[comparison["method"] == "dense", "images_per_second"] = 90
    (axes,) = tradeoff(comparison, x=x, front=True).axes
    (line,) = [line for line in axes.lines if line.get_label() == "Pareto front"]
    assert line.get_ydata().tolist() == pytest.approx(front)


def test_variants_of_a_method_have_lines_of_their_own() -> None:
    strategies = ["topk@0.8", "topk@0.6", "topk:scorer=Mine@0.8", "topk:scorer=Mine@0.6"]
    frame = pd.DataFrame({"strategy": strategies, "method": "topk", "gmacs": [8, 6, 8, 6]})
    frame["top1"] = [80.0, 70, 81, 71]
    configs = [{"scorer": "Mine" in label, "schedule": label} for label in strategies]
    frame["config"] = list(map(json.dumps, configs))
    (axes,) = tradeoff(frame).axes
    plain, mine = axes.lines
    assert [line.get_label() for line in axes.lines] == ["Top-K", "Top-K, scorer=Mine"]
    assert sorted(mine.get_ydata()) == [71, 81]
    assert plain.get_marker() != mine.get_marker()
    assert plain.get_color() != mine.get_color()
    assert looks_of(["topk"])["topk"] == (plain.get_color(), plain.get_marker())


def test_backbones_of_a_paper_look_different(frame: pd.DataFrame) -> None:
    theirs = read_published(GTP_PAPER, table=1, backbone=["DeiT-S", "DeiT-B"])
    (axes,) = tradeoff(frame, relative=True, published=theirs).axes
    small, base = (line for line in axes.lines if "(published)" in str(line.get_label()))
    assert small.get_marker() != base.get_marker()
    assert small.get_color() != base.get_color()
