"""Each cell holds its value, and a gap stays one."""

from typing import Any

import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from tokenred.analysis import heat_map


def test_numbers_contrast_with_their_cells() -> None:
    places = [{"alpha": i % 4, "M": i // 4, "top1": 4.0 * i} for i in range(12) if i != 5]
    frame = pd.DataFrame(places).assign(model="ViT", data="digits", images=10**6)
    axes = heat_map(frame, "alpha", "M").axes[0]
    (mesh,) = axes.collections
    assert len(axes.texts) == 11
    for text in axes.texts:
        cell = mesh.to_rgba(float(text.get_text()))
        assert _contrast(to_rgb(text.get_color()), cell) > 4.5


def _contrast(*colours: Any) -> float:
    """The contrast ratio of WCAG 2."""
    light = []
    for r, g, b, *_ in colours:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (r, g, b)]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_cells_labels_and_note(grid: pd.DataFrame) -> None:
    figure = heat_map(grid, "alpha", "M", fixed={"P": 3})
    axes, bar = figure.axes
    assert [t.get_text() for t in axes.texts] == ["68.5", "69.5", "71.5", "69.0", "70.0", "72.0"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.1", "0.2", "0.4"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["4", "8"]
    assert axes.get_xlabel() == "propagation magnitude α"
    assert axes.get_ylabel() == "semantic neighbours M"
    assert bar.get_ylabel() == "top-1 accuracy (%)"
    assert "P=3; 95% binomial intervals: about ±2.9" in figure.get_supxlabel()


def test_a_parameter_of_another_method_is_not_labelled_as_gtps(grid: pd.DataFrame) -> None:
    figure = heat_map(grid.assign(method="mine"), "alpha", "M")
    assert figure.axes[0].get_xlabel() == "alpha"
    assert figure.axes[0].get_ylabel() == "M"


def test_an_average_says_so_and_what_was_not_run_stays_empty(grid: pd.DataFrame) -> None:
    figure = heat_map(grid, "alpha", "M", title="mine")
    assert "mean over P = 3, 5" in figure.get_supxlabel().replace("\n", " ")
    assert figure.axes[0].get_title() == "mine"
    gap = grid[(grid["P"] == 3) & ~((grid["alpha"] == 0.1) & (grid["M"] == 8))]
    assert len(heat_map(gap, "alpha", "M").axes[0].texts) == 5


def test_colours_span_at_least_an_interval(grid: pd.DataFrame) -> None:
    flat = grid.assign(top1=70 + grid["alpha"])
    low, high = heat_map(flat, "alpha", "M").axes[0].collections[0].get_clim()
    assert high - low == pytest.approx(2 * 2.91, abs=0.05)
    assert (low + high) / 2 == pytest.approx(70.25)
    low, high = heat_map(grid, "alpha", "P", "gmacs").axes[0].collections[0].get_clim()
    assert (low, high) == pytest.approx((0.5, 0.7))


def test_at_full_accuracy_the_whole_lower_side_is_told(grid: pd.DataFrame) -> None:
    ends = {"difference": 0.0, "difference_low": -1.9, "difference_high": 1.9}
    figure = heat_map(grid.assign(top1=100.0, **ends), "alpha", "M")
    assert "about ±1.9" in figure.get_supxlabel()
    assert figure.axes[0].collections[0].get_clim() == pytest.approx((96.2, 100))


def test_as_many_digits_as_tell_cells_apart(grid: pd.DataFrame) -> None:
    cost = grid.assign(gmacs=0.07 + grid["M"] / 1e4)
    texts = [t.get_text() for t in heat_map(cost, "alpha", "M", "gmacs").axes[0].texts]
    assert texts == ["0.0704"] * 3 + ["0.0708"] * 3
