"""The heat maps hold the frame's figures."""

import numpy as np
import pandas as pd
import pytest

from tokenred.analysis import agreement_map
from tokenred.core.errors import InputError


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = [
        (a, b, layer, statistic, sign * (0.9 - 0.1 * layer - 0.02 * at), 0.3, "ViT", "data")
        for at, (a, b) in enumerate([("gtp", "topk"), ("gtp", "tome"), ("topk", "tome")])
        for layer in (2, 3)
        for statistic, sign in (("iou", 1), ("survival", -1))
    ]
    columns = ["a", "b", "layer", "statistic", "mean", "chance", "model", "data"]
    return pd.DataFrame(rows, columns=columns)


def _words(figure: object) -> tuple[list[str], list[str], list[str]]:
    """What is written in the cells, beneath the columns and beside the rows."""
    axes = figure.axes[0]  # type: ignore[attr-defined]
    texts = (axes.texts, axes.get_xticklabels(), axes.get_yticklabels())
    return tuple([text.get_text() for text in group] for group in texts)  # type: ignore[return-value]


def test_every_pair_in_every_block(frame: pd.DataFrame) -> None:
    figure = agreement_map(frame)
    cells, columns, rows = _words(figure)
    assert cells == ["70", "60", "68", "58", "66", "56", "30", "30"]
    assert columns == ["2", "3"]
    assert rows == ["GTP-ViT · Top-K", "GTP-ViT · ToMe", "Top-K · ToMe", "by chance"]
    assert figure.axes[1].get_ylabel() == "kept by both ÷ by either (%)"
    assert figure.get_suptitle() == "ViT on data"
    many = pd.concat([frame.assign(layer=frame["layer"] + 2 * k) for k in range(12)])
    assert _words(agreement_map(many))[0] == []  # no room for numbers


def test_method_against_method(frame: pd.DataFrame) -> None:
    figure = agreement_map(frame, statistic="survival", layer=3, title="")
    assert _words(figure) == (["-0.60", "-0.58", "-0.56"], ["GTP-ViT", "Top-K"], ["Top-K", "ToMe"])
    # As far up as down, so that white is 0.
    assert np.asarray(figure.axes[1].get_ylim()) == pytest.approx([-0.6, 0.6])


def test_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="needs the column mean"):
        agreement_map(frame.drop(columns="mean"))
    with pytest.raises(InputError, match="iou, survival, got 'scores'"):
        agreement_map(frame, statistic="scores")
    with pytest.raises(InputError, match="a block among"):
        agreement_map(frame, layer=7)
