"""Medians, ratios and their interval."""

from __future__ import annotations

import numpy as np
import pytest

from tokenred.analysis.measure.timings import summarise


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
