"""Lines, points and intervals are those of the frame; scorers are lines, or rows at one budget."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from tokenred.analysis import metric_lines, scorer_comparison
from tokenred.core.errors import ConfigError, InputError


def test_a_line_a_value_of_the_hue(grid: pd.DataFrame) -> None:
    figure = metric_lines(grid, "alpha", hue="P", fixed={"M": 8})
    (axes,) = figure.axes
    assert axes.get_xlabel() == "propagation magnitude α"
    assert axes.get_ylabel() == "top-1 accuracy (%)"
    assert axes.get_title() == "ViT on digits"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["P=3", "P=5"]
    lines = [line for line in axes.lines if line.get_label() in ("P=3", "P=5")]
    assert [list(line.get_xdata()) for line in lines] == [[0.1, 0.2, 0.4]] * 2
    heights = [np.asarray(line.get_ydata()).tolist() for line in lines]
    assert heights == [pytest.approx([69, 70, 72]), pytest.approx([67, 68, 70])]
    assert "M=8; 95% binomial intervals" in figure.get_supxlabel()
    # Two lines have bands, more have bars.
    assert len(axes.collections) == 2


def test_many_lines_have_bars_beside_each_other_and_their_legend_aside(
    with_dense: pd.DataFrame,
) -> None:
    many = [with_dense[with_dense["P"] == 3].assign(P=n) for n in range(6)]
    figure = metric_lines(pd.concat([with_dense.tail(1), *many]), "alpha", hue="P", title="")
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.texts] == ["dense"]
    assert axes.get_title() == ""
    lines = [line for line in axes.lines if line.get_label() in list("012345")]
    assert [list(line.get_xdata()) for line in lines] == [[0.1, 0.2, 0.4]] * 6
    assert sum(len(c.get_segments()) for c in axes.collections) == 18
    moved = [bars.get_transform().transform((0.1, 70))[0] for bars in axes.collections]
    assert len(set(moved)) == 6
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list("012345")
    assert legend.get_title().get_text() == "P"


def test_names_stand_side_by_side_and_costs_have_no_bars(grid: pd.DataFrame) -> None:
    named = grid.assign(alpha=grid["alpha"].map({0.1: "linear", 0.2: "none", 0.4: "step"}))
    figure = metric_lines(named, "alpha", "gmacs")
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ["linear", "none", "step"]
    assert not figure.legends
    assert not axes.collections
    assert axes.get_ylabel() == "cost per image (GMACs)"


def test_a_reference_among_the_cells_has_no_bar_and_the_others_keep_theirs(
    with_reference: pd.DataFrame,
) -> None:
    cells = with_reference[with_reference["M"] == 4].copy()
    cells.loc[cells.index[0], ["difference", "difference_low", "difference_high"]] = np.nan
    figure = metric_lines(cells, "alpha", fixed={"P": 3})
    (bars,) = figure.axes[0].collections
    ends = [bar[:, 1].tolist() for bar in bars.get_segments() if len(bar)]
    assert ends == [pytest.approx([68.5, 70.5]), pytest.approx([70.5, 72.5])]
    assert [text.get_text() for text in figure.axes[0].texts] == ["GTP-ViT, M=1"]
    figure = scorer_comparison(cells.assign(scorer=cells["alpha"].map(str)), fixed={"P": 3})
    drawn = [bar for bars in figure.axes[0].collections for bar in bars.get_segments() if len(bar)]
    assert len(drawn) == 2


def test_refused(grid: pd.DataFrame, with_reference: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"paired intervals in the frame, 0\.95, got 0\.9"):
        metric_lines(with_reference, "alpha", fixed={"P": 3, "M": 4}, level=0.9)
    with pytest.raises(ConfigError, match="different columns, got alpha, alpha"):
        metric_lines(grid, "alpha", hue="alpha")
    with pytest.raises(InputError, match="needs the column scorer"):
        scorer_comparison(grid)


def test_scorers_best_first(with_dense: pd.DataFrame) -> None:
    scorers = {"MixedAttn": 0.0, "DiagAttn": 1.0, "Random": -2.0}
    one = with_dense[(with_dense["alpha"] == 0.1) & (with_dense["M"] == 8)]
    rows = [one.assign(top1=one["top1"] + extra, scorer=name) for name, extra in scorers.items()]
    study = pd.concat([*rows, with_dense.tail(1)])[["scorer", *one.columns[2:]]]
    figure = scorer_comparison(study)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["DiagAttn", "MixedAttn", "Random"]
    assert figure.axes[0].get_xlabel() == "tokens removed per block, P"
    # At one budget a row each, the best on top.
    figure = scorer_comparison(study, fixed={"P": 3})
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["Random", "MixedAttn", "DiagAttn"]
    points = [line for line in axes.lines if line.get_marker() not in ("None", "", "|")]
    assert [line.get_xdata().item() for line in points] == pytest.approx([67.0, 69.0, 70.0])
    looks = [(line.get_color(), line.get_marker()) for line in points]
    assert len(set(looks)) == 3  # as in the figure with several budgets
    assert "P=3" in figure.get_supxlabel()
    assert [t.get_text() for t in axes.texts] == ["dense"]


def _dashed(axes: Axes) -> list[tuple[list[float], str]]:
    """The heights and colours of dashed lines."""
    lines = [line for line in axes.lines if line.get_linestyle() == "--"]
    heights = [np.asarray(line.get_ydata()).tolist() for line in lines]
    return list(zip(heights, [to_hex(line.get_color()) for line in lines], strict=True))


def test_references_at_several_budgets(at_budgets: pd.DataFrame) -> None:
    told = "GTP-ViT, M=1 at the same budget"
    figure = metric_lines(at_budgets, "alpha", hue="budget", fixed={"M": 8})
    (axes,) = figure.axes
    colours = {
        line.get_label(): to_hex(line.get_color())
        for line in axes.lines
        if line.get_label() in ("budget=0.5", "budget=0.7")
    }
    assert _dashed(axes) == [
        ([74.0, 74.0], colours["budget=0.5"]), ([75.0, 75.0], colours["budget=0.7"]),
    ]  # fmt: skip
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == told
    assert f"difference from {told}" in figure.get_supxlabel().replace("\n", " ")
    (axes,) = metric_lines(at_budgets, "budget", hue="alpha", fixed={"M": 8}).axes
    assert [heights for heights, _ in _dashed(axes)] == [[74.0, 75.0]]
    (axes,) = metric_lines(at_budgets, "alpha", fixed={"M": 8}).axes  # averaged over budgets
    assert [heights for heights, _ in _dashed(axes)] == [[74.5, 74.5]]
    (axes,) = metric_lines(at_budgets, "alpha", fixed={"M": 8, "budget": 0.7}).axes
    assert [heights for heights, _ in _dashed(axes)] == [[75.0, 75.0]]
    assert [text.get_text() for text in axes.texts] == ["GTP-ViT, M=1 at 0.7\n(0.9 GMACs)"]


def test_a_reference_of_several_seeds_is_averaged_like_its_cells(
    with_reference: pd.DataFrame,
) -> None:
    frame = pd.concat([with_reference.assign(seed=seed) for seed in (0, 1)], ignore_index=True)
    frame.loc[frame["seed"] == 1, "top1"] += 1
    seeds = frame.pop("seed")
    frame.insert(0, "seed", seeds)
    figure = metric_lines(frame, "alpha", fixed={"M": 8, "P": 3})
    assert [heights for heights, _ in _dashed(figure.axes[0])] == [[74.5, 74.5]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["GTP-ViT, M=1"]
    (axes,) = metric_lines(frame, "seed", fixed={"M": 8, "P": 3, "alpha": 0.1}).axes
    assert [heights for heights, _ in _dashed(axes)] == [[74.0, 75.0]]


def test_no_caption_is_cut_at_any_resolution(at_budgets: pd.DataFrame) -> None:
    for words in ("paired by image", "i" * 30, "W" * 30):
        frame = at_budgets.assign(difference_from=f"gtp:{words}", difference_level=0.95)
        figure = metric_lines(frame, "alpha", hue="budget")
        for dpi in (72, 100, 300, 600):
            figure.set_dpi(dpi)
            (caption,) = figure.texts
            drawn = caption.get_window_extent(figure.canvas.get_renderer())
            assert 0.5 < drawn.x1 / figure.bbox.width < 0.99
