from __future__ import annotations

from typing import Any

import pytest

from tokenred.core.errors import ConfigError
from tokenred.data.statistics import check_statistics


def test_three_numbers_become_floats() -> None:
    assert check_statistics("mean", [0, 0.5, -1]) == (0.0, 0.5, -1.0)


@pytest.mark.parametrize("values", [(1, 2), (1, 2, "x"), 3, None, (0, 0, float("nan"))])
@pytest.mark.parametrize("name", ["mean", "std"])
def test_anything_else_is_refused(name: str, values: Any) -> None:
    with pytest.raises(ConfigError, match=f"expected {name} as three"):
        check_statistics(name, values)


@pytest.mark.parametrize("last", [0, -1])
def test_a_spread_is_positive(last: float) -> None:
    with pytest.raises(ConfigError, match="three positive numbers"):
        check_statistics("std", (1, 1, last))
