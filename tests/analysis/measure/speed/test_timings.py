"""Medians, ratios and their interval."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tokenred.analysis.measure.speed.timings import Benchmark, summarise
from tokenred.core.errors import DataError, OutputExistsError

MACHINE = {"processor": "P", "cores": 2, "threads": 1, "torch": "2", "device": "cpu"}


def test_constant_times() -> None:
    found = summarise("x", np.tile([0.3, 0.2], (9, 1)), 8, 2.0, 4.0)
    assert found.dense_ms == pytest.approx(300)
    assert found.ms == pytest.approx(200)
    assert found.images_per_second == pytest.approx(40)
    assert found.speedup == found.speedup_low == found.speedup_high == pytest.approx(1.5)
    assert found.allowed == 2
    assert found.realised == pytest.approx(0.75)
    assert found.to_dict()["realised_high"] == pytest.approx(0.75)


def test_a_drift_that_hits_both_leaves_the_ratio() -> None:
    drift = np.linspace(1, 5, 9)[:, None]
    found = summarise("x", np.array([[0.3, 0.2]]) * drift, 8, 2.0, 4.0)
    assert (found.speedup, found.speedup_high) == pytest.approx((1.5, 1.5))


def test_interval_covers_the_median_ratio_and_is_reproducible() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(400):
        seconds = np.stack((rng.lognormal(0.4, 0.1, 15), rng.lognormal(0, 0.1, 15)), axis=1)
        found = summarise("x", seconds, 8, 2.0, 4.0)
        hits += found.speedup_low <= np.exp(0.4) <= found.speedup_high
    assert 0.84 <= hits / 400 <= 0.97
    assert found == summarise("x", seconds, 8, 2.0, 4.0)


def test_quartiles() -> None:
    seconds = np.array([[0.4, 0.1], [0.4, 0.2], [0.4, 0.4], [0.8, 0.2], [0.8, 0.4]])
    found = summarise("x", seconds, 8, 2.0, 4.0, overhead_gmacs=0.5)
    assert (found.ms_q1, found.ms_q3) == pytest.approx((200, 400))
    assert (found.dense_ms_q1, found.dense_ms_q3) == pytest.approx((400, 800))
    # The ratios are 4, 2, 1, 4, 2.
    assert (found.speedup_q1, found.speedup_q3) == pytest.approx((2, 4))
    assert found.overhead_gmacs == 0.5
    assert not {"peak_bytes", "split"} & set(found.to_dict())


def test_json(tmp_path: Path) -> None:
    timing = summarise("x", np.tile([0.3, 0.2], (9, 1)), 8, 2.0, 4.0)
    found = Benchmark((timing,), 8, (3, 4, 4), "float32", 0, MACHINE, compile="default")
    text = found.to_json(tmp_path / "b.json")
    assert (tmp_path / "b.json").read_text() == text
    values = json.loads(text)
    assert values["machine"] == MACHINE
    assert values["timings"][0]["realised_low"] == pytest.approx(0.75)
    assert Benchmark.from_json(text) == Benchmark.from_json(tmp_path / "b.json") == found
    with pytest.raises(OutputExistsError):
        found.to_json(tmp_path / "b.json")
    (tmp_path / "deep.json").write_text("[" * 10**5)
    for source in ("{}", "[]", tmp_path / "deep.json", tmp_path / "none.json", str(tmp_path)):
        with pytest.raises(DataError, match="to_json wrote"):
            Benchmark.from_json(source)
