"""The curves are those of the frame."""

import numpy as np
import pandas as pd
import pytest

from tokenred.analysis import smoothing_curves
from tokenred.core.errors import InputError


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = []
    for at, strategy in enumerate(["dense", "GTP-ViT", "Top-K"]):
        for layer in range(4):
            for statistic in ("cosine", "effective_rank", "high_frequency"):
                mean = 0.1 * layer + 0.01 * at
                row = (strategy, layer, statistic, mean, mean - 0.02, mean + 0.02)
                gap = (0.01 * at, 0.01 * at - 0.003, 0.01 * at + 0.003) if at else (np.nan,) * 3
                rows.append((*row, *gap, "ViT", "data"))
    columns = ["strategy", "layer", "statistic", "mean", "low", "high", "difference",
               "difference_low", "difference_high", "model", "data"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def test_one_panel(frame: pd.DataFrame) -> None:
    figure = smoothing_curves(frame)
    (axes,) = figure.axes
    assert figure.get_suptitle() == "ViT on data"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("block", "mean cosine similarity")
    assert figure.get_figwidth() == 3.5
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["dense", "GTP-ViT", "Top-K"]
    for at, line in enumerate(axes.lines):
        assert np.asarray(line.get_ydata()) == pytest.approx(0.1 * np.arange(4) + 0.01 * at)
    assert len({line.get_marker() for line in axes.lines}) == 3
    band = axes.collections[0].get_paths()[0].vertices
    assert np.asarray(band)[:, 1].min() == pytest.approx(-0.02)


def test_panels_and_percent(frame: pd.DataFrame) -> None:
    wanted = ["high_frequency", "cosine_difference", "effective_rank"]
    figure = smoothing_curves(frame, statistics=wanted, title="")
    percent, paired, rank = figure.axes
    assert percent.get_ylabel() == "energy outside mean (%)"
    assert max(percent.lines[0].get_ydata()) == pytest.approx(30)
    assert paired.get_ylabel() == "mean cosine similarity\nΔ vs. dense"
    assert [line.get_ydata()[0] for line in paired.lines] == pytest.approx([0, 0.01, 0.02])
    assert rank.get_ylabel() == "effective rank (directions)"
    assert figure.get_suptitle() == ""
    assert len(figure.legends) == 1
    assert figure.get_size_inches()[0] == 7


def test_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="needs the column low"):
        smoothing_curves(frame.drop(columns="low"))
    for statistics, said in (("lost", "lost"), ([], "none"), ("lost_difference", "lost_diff")):
        with pytest.raises(InputError, match=f"got {said}"):
            smoothing_curves(frame, statistics=statistics)
