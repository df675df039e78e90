"""Tokens that are followed once, and kept in a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tokenred.analysis.reproduction.cells import Settings
from tokenred.analysis.reproduction.experiments import EXPERIMENTS
from tokenred.analysis.reproduction.following import follow_tokens
from tokenred.analysis.reproduction.stands import Stand

EXPERIMENT = replace(EXPERIMENTS["figure6"], follow=("gtp", "topk"))
STAND = Stand("digits", "DeiT-S", {"spec": "digits"})
OPTIONS = {"batch_size": 5, "loaders": 0, "device": None, "seed": 0, "split": None}
SETTINGS = Settings(None, "digits", 5, 5, ("accuracy",), OPTIONS, progress=False)


def test_at_one_cost_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = follow_tokens(EXPERIMENT, STAND, SETTINGS, tmp_path)
    assert set(found["strategy"]) == {"dense", "gtp", "topk"}
    assert set(found["images"]) == {5}
    costs = found.groupby("strategy")["gmacs"].first()
    assert (costs.drop("dense") / costs["dense"] <= 0.75).all()
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("figure6-")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("followed again")

    monkeypatch.setattr("tokenred.analysis.measure.tokens.smoothing.oversmoothing", never)
    again = follow_tokens(EXPERIMENT, STAND, SETTINGS, tmp_path)
    columns = ["strategy", "layer", "statistic", "mean", "low", "high"]
    pd.testing.assert_frame_equal(again[columns], found[columns])
    # Other images, weights or strategies are another file.
    others = [
        (EXPERIMENT, replace(SETTINGS, limit=6)),
        (EXPERIMENT, replace(SETTINGS, options={**OPTIONS, "seed": 1})),
        (replace(EXPERIMENT, follow=("gtp", "topk:keep_rate=0.5")), SETTINGS),
    ]
    for experiment, settings in others:
        with pytest.raises(AssertionError, match="again"):
            follow_tokens(experiment, STAND, settings, tmp_path)
