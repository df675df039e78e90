"""Paired differences as columns."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from tokenred.analysis.difference import difference_columns
from tokenred.analysis.measure.intervals import Interval


def test_points_and_not_proportions() -> None:
    found = difference_columns(asdict(Interval(-0.02, -0.05, 0.01, 0.9, 3, 5, 0.7)))
    assert found == pytest.approx(
        {"difference": -2, "difference_low": -5, "difference_high": 1, "p_value": 0.7}
    )
