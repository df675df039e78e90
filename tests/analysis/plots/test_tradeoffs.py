"""The figure says what the frame says."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tokenred.analysis import tradeoff
from tokenred.analysis.plots.style import png
from tokenred.analysis.plots.tradeoffs import _set_apart
from tokenred.core.errors import InputError


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
    assert axes.get_xlabel() == "cost of an image (GMACs)"
    assert axes.get_ylabel() == "top-1 accuracy (%)"
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["gtp", "tome", "dense"]
    drawn = [line for line in axes.lines if len(line.get_xdata()) == 2]
    heights = [sorted(map(float, line.get_ydata())) for line in drawn]
    for method in ("gtp", "tome"):
        assert sorted(frame.loc[frame["method"] == method, "top1"]) in heights
    ends = [segment[:, 1] for bars in axes.collections for segment in bars.get_segments()]
    assert sorted(map(tuple, np.round(ends, 6)))[0] == pytest.approx((77.0, 79.0))
    assert list(figure.get_size_inches()) == [3.5, 2.8]


def test_only_points_of_one_cost_are_set_apart() -> None:
    gmacs = pd.Series([3.0, 2.0, 3.01, 2.5])
    moved = _set_apart(gmacs, 2.0)
    assert moved[[1, 3]].tolist() == [2.0, 2.5]
    assert moved[2] - moved[0] == pytest.approx(0.04)
    assert moved.mean() == pytest.approx(gmacs.mean())


def test_png_of_200_dpi(frame: pd.DataFrame) -> None:
    data = png(tradeoff(frame))
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20], "big") == 700


def test_pyplot_is_left_alone(frame: pd.DataFrame) -> None:
    import matplotlib.pyplot as plt

    before = plt.rcParams["font.size"], plt.get_fignums()
    tradeoff(frame)
    assert (plt.rcParams["font.size"], plt.get_fignums()) == before


def test_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="top1"):
        tradeoff(frame.drop(columns="top1"))
    with pytest.raises(InputError, match="dense row"):
        tradeoff(frame[1:])


def test_importing_the_analysis_draws_nothing() -> None:
    program = (
        "import sys, tokenred.analysis; from tokenred.analysis import tradeoff, benchmark;"
        "print([m for m in ('seaborn', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert out.stdout.strip() == "[]", out.stderr
