"""Levels of confidence."""

from __future__ import annotations

import pytest

from tokenred.analysis.level import check_level
from tokenred.core.errors import ConfigError


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.5, float("nan")])
def test_refused(level: float) -> None:
    with pytest.raises(ConfigError, match=r"level must be a finite number in \(0, 1\)"):
        check_level(level)


@pytest.mark.parametrize("level", [0.01, 0.95, 0.999])
def test_fine(level: float) -> None:
    check_level(level)
