"""The heat maps hold the frame's figures."""

from __future__ import annotations

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


def _written(figure: object) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]  # type: ignore[attr-defined]


def test_every_pair_in_every_block(frame: pd.DataFrame) -> None:
    figure = agreement_map(frame)
    axes, bar = figure.axes
    assert axes.get_xlabel() == "block"
    assert bar.get_ylabel() == "kept by both ÷ by either (%)"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["2", "3"]
    names = [t.get_text() for t in axes.get_yticklabels()]
    assert names == ["gtp · topk", "gtp · tome", "topk · tome", "by chance"]
    assert _written(figure) == ["70", "60", "68", "58", "66", "56", "30", "30"]
    assert figure.get_suptitle() == "ViT on data"


def test_method_against_method(frame: pd.DataFrame) -> None:
    figure = agreement_map(frame, statistic="survival", layer=3, title="")
    axes, bar = figure.axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ["gtp", "topk"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["topk", "tome"]
    assert _written(figure) == ["-0.60", "-0.58", "-0.56"]
    # As far up as down, so that white is 0.
    assert np.asarray(bar.get_ylim()) == pytest.approx([-0.6, 0.6])


def test_many_blocks_leave_no_room_for_numbers(frame: pd.DataFrame) -> None:
    more = pd.concat([frame.assign(layer=frame["layer"] + 2 * k) for k in range(12)])
    assert _written(agreement_map(more)) == []


def test_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="needs the column mean"):
        agreement_map(frame.drop(columns="mean"))
    with pytest.raises(InputError, match="iou, survival, got 'scores'"):
        agreement_map(frame, statistic="scores")
    with pytest.raises(InputError, match="a block among"):
        agreement_map(frame, layer=7)
