"""The figure says what the frame says."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tokenred.analysis import metric_lines, read_published, tradeoff
from tokenred.analysis.plots.looks import looks_of, read_name
from tokenred.analysis.plots.published import GTP_PAPER
from tokenred.core.errors import ConfigError, InputError


def test_lines_bars_and_labels(comparison: pd.DataFrame) -> None:
    figure = tradeoff(comparison)
    (axes,) = figure.axes
    assert axes.get_title() == "ViT on digits"
    assert axes.get_xlabel() == "cost per image (GMACs)"
    assert axes.get_ylabel() == "top-1 accuracy (%)"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["GTP-ViT", "ToMe", "dense"]
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["GTP-ViT"].get_xydata().tolist() == [[2, 79], [3, pytest.approx(80 - 2 / 3)]]
    assert lines["ToMe"].get_xydata().tolist() == [[2, 78], [3, pytest.approx(79 - 2 / 3)]]
    # Bars go through their markers, paired with dense: a point either way.
    bars = [segment for group in axes.collections for segment in group.get_segments()]
    assert sorted(bar[0, 0] for bar in bars) == [2, 2, 3, 3]
    assert [bar[:, 1].tolist() for bar in bars if bar[0, 0] == 2] == [[78, 80], [77, 79]]
    assert figure.get_figwidth() == 3.5


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


def test_refused(comparison: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="needs the column images_per_second"):
        tradeoff(comparison.drop(columns="images_per_second"), x="images_per_second")
    with pytest.raises(InputError, match="dense row"):
        tradeoff(comparison[1:], relative=True)
    with pytest.raises(ConfigError, match="x as one of gmacs, images_per_second"):
        tradeoff(comparison, x="ms")
    with pytest.raises(InputError, match="no dense model"):
        tradeoff(comparison, published=read_published(GTP_PAPER, table=2), relative=True)
    with pytest.raises(InputError, match="both top1 and gmacs"):
        tradeoff(comparison, published=read_published(GTP_PAPER, table=6))
    with pytest.raises(InputError, match="finished rows"):
        tradeoff(comparison.assign(top1=np.nan))


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


def test_fixed_values_keep_dense_and_stand_in_the_caption(with_dense: pd.DataFrame) -> None:
    frame = with_dense.fillna({"gmacs": 1.0, "images": 1000})
    figure = tradeoff(frame, hue="M", fixed={"P": 3})
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    own = frame[(frame["P"] == 3) & (frame["M"] == 8)]
    assert sorted(lines["8"].tolist()) == own[["gmacs", "top1"]].to_numpy().tolist()
    assert lines["dense"].tolist() == [[1.0, 75.0]]
    (caption,) = (text.get_text() for text in figure.texts)
    assert caption.startswith("95% binomial intervals; P=3")
    with pytest.raises(InputError, match="no row has P=4"):
        tradeoff(frame, fixed={"P": 4})


def test_measured_speed_has_the_bars_of_the_speed_up(comparison: pd.DataFrame) -> None:
    figure = tradeoff(comparison, x="images_per_second")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "measured throughput (images/s)"
    assert _caption(figure).endswith(
        "; 90% intervals of the speed-up; overlapping bars are drawn side by side"
    )
    across = [s for bars in axes.collections for s in bars.get_segments() if s[0, 1] == s[1, 1]]
    ends = sorted(tuple(segment[:, 0]) for segment in across)
    assert np.allclose(ends, [(290 / 3, 110)] * 2 + [(98, 102)] + [(145, 165)] * 2)


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
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
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
    several = tradeoff(comparison, published=GTP_PAPER)
    names = [text.get_text() for text in several.legends[0].get_texts()]
    assert {"GTP-ViT, DeiT-B (published)", "EViT, DeiT-S, fine-tuned (published)"} <= set(names)
    assert len(names) == len(set(names))
    # Backbones look different.
    both = {line.get_label(): line for line in several.axes[0].lines}
    small, base = (both[f"GTP-ViT, {name} (published)"] for name in ("DeiT-S", "DeiT-B"))
    assert small.get_marker() != base.get_marker()
    assert small.get_color() != base.get_color()


def test_measured_and_published_methods_differ_in_colour(comparison: pd.DataFrame) -> None:
    ours = comparison.replace({"method": {"tome": "pitome", "gtp": "mine"}})
    theirs = read_published(GTP_PAPER, table=1, backbone="DeiT-S")[:2]
    figure = tradeoff(ours, published=theirs.assign(method=["ATS", "ToMe"]))
    handles, _ = figure.axes[0].get_legend_handles_labels()
    assert len({line.get_color() for line in handles}) == len(handles) == 5


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


def test_a_point_below_another_is_drawn_larger() -> None:
    frame = pd.DataFrame(
        {"method": ["gtp", "gtp", "mine", "mine", "dense"], "gmacs": [8.0, 6, 8, 6, 9]}
    ).assign(top1=[80.0, 70, 80, 60, 82])
    (axes,) = tradeoff(frame).axes
    gtp, mine, _, star, again = axes.lines
    assert [line.get_label() for line in (gtp, mine, star)] == ["GTP-ViT", "mine", "dense"]
    assert gtp.get_xydata().tolist() == [[6, 70], [8, 80]]
    np.testing.assert_equal(again.get_xydata(), [[np.nan] * 2, [8, 80]])
    assert again.get_markersize() > mine.get_markersize() == gtp.get_markersize()
    assert again.get_zorder() < mine.get_zorder()
    assert (again.get_color(), again.get_marker()) == (gtp.get_color(), gtp.get_marker())
    (axes,) = tradeoff(frame.assign(top1=[80.0, 70, 75, 60, 82])).axes
    assert len(axes.lines) == 4


def test_a_point_that_another_almost_hides_is_drawn_larger_in_a_figure_of_any_size() -> None:
    names = ["gtp", "mine", *(f"a method with a long name {i}" for i in range(9))]
    frame = pd.DataFrame({"method": names, "gmacs": [5.0, 5, *range(1, 10)]})
    frame = frame.assign(top1=[70.0, 70.15, *range(60, 69)])
    for height in (None, 9.0):  # the axes are small beside the legend, or large
        (axes,) = tradeoff(frame, height=height).axes
        hidden = [line for line in axes.lines if line.get_label() == "_hidden"]
        assert len(hidden) == (height is None)


def test_bars_at_one_cost_stand_side_by_side_and_markers_at_their_costs(
    comparison: pd.DataFrame,
) -> None:
    figure = tradeoff(comparison, relative=True, front=True)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    bars = [bar for bar in axes.collections if bar.get_segments()[0][0, 0] == 50]
    ends = [bar.get_transform().transform(bar.get_segments()[0])[0, 0] for bar in bars]
    (true, _) = axes.transData.transform((50, 0))
    assert np.subtract(ends, true) * 72 / figure.dpi == pytest.approx([-1.5, 1.5])
    assert axes.get_ylim()[0] < -3  # the lowest end of a bar
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["GTP-ViT"].get_xdata().tolist() == lines["ToMe"].get_xdata().tolist() == [50, 75]
    assert "_hidden" not in lines  # a front has no markers that others could hide


def test_a_legend_shows_no_line_where_none_is_drawn(comparison: pd.DataFrame) -> None:
    (axes,) = tradeoff(comparison.drop(index=1)).axes
    styles = {line.get_label(): line.get_linestyle() for line in axes.lines}
    assert styles["GTP-ViT"] == "None"
    assert styles["ToMe"] == "-"


def test_rows_and_lines_have_one_colour_a_method_whatever_is_best() -> None:
    frame = pd.DataFrame({"method": ["b", "c", "a"], "top1": [70.0, 72.0, 71.0], "gmacs": 1.0})
    frame = frame.assign(model="ViT", data="digits", images=100)
    figures = [
        tradeoff(frame),
        tradeoff(frame.assign(gmacs=[3.0, 2.0, 1.0])),
        metric_lines(frame.assign(P=3), "P", hue="method"),
    ]
    for figure in figures:
        lines = (line for line in figure.axes[0].lines if line.get_marker() not in ("", "None"))
        drawn: dict[float, Any] = {}
        for line in lines:
            for value in (*line.get_xdata(), *line.get_ydata()):
                drawn.setdefault(float(value), (line.get_color(), line.get_marker()))
        looks = looks_of(frame["method"])
        for method, value in zip(frame["method"], frame["top1"], strict=True):
            assert drawn[value] == looks[method]


def test_at_one_cost_each_strategy_has_a_row(comparison: pd.DataFrame) -> None:
    frame = comparison[comparison["gmacs"] != 3].reset_index(drop=True)
    frame = frame.assign(strategy=["dense", "gtp@0.5", "tome@0.5"], gmacs=[4, 2, 2.04])
    figure = tradeoff(frame)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "top-1 accuracy (%)"
    assert [t.get_text() for t in axes.get_yticklabels()] == ["ToMe", "GTP-ViT"]
    values = {line.get_marker(): line.get_xydata().tolist() for line in axes.lines}
    looks = looks_of(["gtp", "tome"])
    assert values[looks["gtp"][1]] == [[79, 1]]
    assert values[looks["tome"][1]] == [[78, 0]]
    bars = [bar.get_segments()[0][:, 0].tolist() for bar in axes.collections]
    assert sorted(bars) == [[77, 79], [78, 80]]
    words = "all at 2 to 2.04 GMACs per image, 50% to 51% of dense; intervals of the difference "
    assert _caption(figure) == f"{words}from the reference, paired by image"
    (axes,) = tradeoff(frame, relative=True).axes
    assert axes.get_xlabel() == "top-1 Δ vs. dense (points)"
    assert len(tradeoff(frame, front=True).legends) == 1
    assert len(tradeoff(frame.assign(gmacs=[4, 2, 3])).legends) == 1


def test_cells_of_a_study_at_one_cost_are_told_apart_by_its_axes(grid: pd.DataFrame) -> None:
    figure = tradeoff(grid[grid["P"] == 3])
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names[0] == "α=0.1, M=4"
    assert names[-1] == "α=0.4, M=8"
    assert len(names) == 6
    assert _caption(figure) == "all at 0.7 GMACs per image; 95% binomial intervals"


def _caption(figure: Figure) -> str:
    return " ".join(figure.get_supxlabel().split())


def test_a_reference_is_a_row_on_a_dashed_line_without_a_bar() -> None:
    strategies = ["gtp:scorer=Mine@0.6", "tome@0.6", "gtp@0.6", "gtp:P=8@0.6"]
    frame = pd.DataFrame({"base": [None, "tome", "gtp", "gtp:P=8"], "strategy": strategies})
    frame = frame.assign(method=["gtp", "tome", "gtp", "gtp"], config=strategies)
    frame = frame.assign(
        model="ViT", data="digits", gmacs=2.0, images=100, top1=[80, 82, 78, 77],
        difference=[np.nan, 2, -2, -3], difference_low=[np.nan, -1, -5, -6],
        difference_high=[np.nan, 5, 1, 0], difference_from=strategies[0], difference_level=0.95,
    )  # fmt: skip
    figure = tradeoff(frame)
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["GTP-ViT, P=8", "GTP-ViT", "GTP-ViT, scorer=Mine", "ToMe"]
    (name,) = axes.texts
    assert (name.get_text(), name.xy[0]) == ("GTP-ViT, scorer=Mine at 0.6", 80)
    bars = [bar for bars in axes.collections for bar in bars.get_segments()]
    assert sorted(bar[:, 0].tolist() for bar in bars if len(bar)) == [[74, 80], [75, 81], [79, 85]]
    reference = "GTP-ViT, scorer=Mine at 0.6"
    words = f"95% intervals of the difference from {reference}, paired by image"
    assert _caption(figure) == f"all at 2 GMACs per image; {words}"
    figure = tradeoff(frame.assign(gmacs=[2, 2, 3, 4]))
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines[reference].get_xydata().tolist() == [[2, 80]]
    (name,) = figure.axes[0].texts
    assert name.get_text() == reference.replace(" at", "\nat")
    assert _caption(figure) == f"{words}; overlapping bars are drawn side by side"


def test_a_reference_without_a_value_of_the_hue_is_a_line_only(
    with_reference: pd.DataFrame,
) -> None:
    figure = tradeoff(with_reference, hue="M")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["4", "8"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["GTP-ViT, M=1"]


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
