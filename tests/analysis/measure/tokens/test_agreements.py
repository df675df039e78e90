"""Agreement of selections, on the embedded model and data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import tokenred as tr
from tokenred.analysis import Agreement, agreement
from tokenred.analysis.measure.inputs import open_for
from tokenred.core.errors import ConfigError

QUICK: dict[str, Any] = {"limit": 20, "batch_size": 8, "progress": False}
SPECS = ["gtp", "topk", "tome", "evit"]


@pytest.fixture(scope="module")
def result(digits: nn.Module) -> Agreement:
    return agreement(digits, "digits", SPECS, removed=[0, 6, 0, 6], name="digits ViT", **QUICK)


def _row(frame: pd.DataFrame, a: str, b: str, layer: int, statistic: str) -> pd.Series:
    (found,) = [
        row
        for _, row in frame.iterrows()
        if (row["a"], row["b"], row["layer"], row["statistic"]) == (a, b, layer, statistic)
    ]
    return found


def test_rows(result: Agreement) -> None:
    frame = result.frame
    assert frame.groupby(["a", "b"], sort=False).ngroups == 6
    # From the first block that removes on; scores where tokens are scored, by both.
    assert set(frame["layer"]) == set(range(1, 8))
    scored = frame[frame["statistic"] == "scores"]
    assert set(scored["layer"]) == {1, 3}
    assert "tome" not in {*scored["a"], *scored["b"]}
    assert set(frame["tokens"]) == {58, 52}
    assert (frame["images"] == 20).all()
    shares = frame[frame["statistic"] == "iou"]
    assert shares["mean"].between(0, 1).all()
    assert frame["mean"].between(-1, 1).all()
    assert (frame["low"] <= frame["mean"] + 1e-9).all()


def test_the_figures_are_those_of_the_traces(result: Agreement, digits: nn.Module) -> None:
    counts = tr.PerLayer((0, 6, 0, 6))
    loader = tr.data.make_loader(open_for(digits, "digits"), 20, limit=20)
    images = next(iter(loader))[0]
    kept = []
    for recipe in ("gtp", "topk"):
        fast = tr.wrap(digits, tr.strategy(recipe).replace(schedule=counts))
        with torch.no_grad():
            kept.append(fast.run_with_trace(images)[1].index)
    pairs = [(set(a), set(b)) for a, b in zip(kept[0].tolist(), kept[1].tolist(), strict=True)]
    expected = np.mean([len(a & b) / len(a | b) for a, b in pairs])
    row = _row(result.frame, "gtp", "topk", 7, "iou")
    assert row["mean"] == pytest.approx(expected)
    assert row["low"] < expected < row["high"]


def test_what_agrees_and_what_does_not(digits: nn.Module) -> None:
    specs = {"a": "topk", "b": "topk", "c": "random", "d": "topk:scorer=Random(seed=1)"}
    frame = agreement(digits, "digits", specs, removed=4, **QUICK).frame
    same = frame[(frame["a"] == "a") & (frame["b"] == "b")]
    assert same["mean"].tolist() == pytest.approx([1] * (3 * 8))
    luck = _row(frame, "a", "c", 7, "iou")
    assert luck["mean"] == pytest.approx(luck["chance"], abs=0.06)
    assert abs(_row(frame, "c", "d", 7, "survival")["mean"]) < 0.25


def test_printed(result: Agreement) -> None:
    text = str(result)
    for words in ("last block (52 tokens): digits ViT on digits", "IoU", "by chance", "20 images"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 140
    assert result.plot(statistic="survival").axes


def test_refused(digits: nn.Module) -> None:
    with pytest.raises(ConfigError, match="two strategies"):
        agreement(digits, "digits", ["gtp"])
    with pytest.raises(ConfigError, match="level"):
        agreement(digits, "digits", SPECS, level=0)
