"""Shares, quartiles and the cost of looking, by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tokenred.analysis.measure.speed.splits import LINES, TimeSplit, summarise_split
from tokenred.core.errors import UnknownNameError

ABOUT = {
    "batch_size": 4, "image_shape": (3, 8, 8), "tokens": 5, "precision": "float32", "seed": 0,
    "machine": {"processor": "P", "cores": 2, "threads": 1, "torch": "2", "device": "cpu"},
}  # fmt: skip


@pytest.fixture
def split() -> TimeSplit:
    seconds = {name: np.zeros(3) for name in LINES}
    seconds["mlp"] = np.array([0.5, 0.7, 0.6])
    seconds["graph"] = np.array([0.1, 0.1, 0.1])
    seconds["fuse"] = np.array([0.1, 0.3, 0.2])
    seconds["attention"] = np.array([0.1, 0.1, 0.1])
    return summarise_split(seconds, np.array([0.8, 0.9, 1.0]), **ABOUT)


def test_figures(split: TimeSplit) -> None:
    assert split.ms == pytest.approx(1000)
    assert split["mlp"].ms == pytest.approx(600)
    assert (split["mlp"].ms_q1, split["mlp"].ms_q3) == pytest.approx((550, 650))
    assert split["mlp"].share == pytest.approx(0.6)
    assert split.choosing.ms == pytest.approx(300)
    assert split.choosing.share == pytest.approx(0.3)
    assert split.plain_ms == pytest.approx(900)
    assert split.cost_of_looking == pytest.approx(1 / 9)
    assert sum(split.shares().values()) - split.shares()["choosing"] == pytest.approx(1)
    with pytest.raises(UnknownNameError, match="Did you mean 'selection'"):
        split["select"]


def test_round_trip(split: TimeSplit) -> None:
    text = json.dumps(split.to_dict(), allow_nan=False)
    assert TimeSplit.from_dict(json.loads(text)) == split


def test_printed(split: TimeSplit) -> None:
    text = str(split)
    for words in ("statistics and θ", "select, graph, fuse", "30.0%", "+11.1%", "5 tokens", "3 of"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 100
    assert split.frame()["name"].tolist() == list(LINES)
