"""Column sums, diagonal and rows, against the map in float64."""

from __future__ import annotations

import pytest

from tests.attention.triton import checks
from tests.attention.triton.cases import Case
from tests.attention.triton.conftest import Run


@pytest.mark.parametrize("n", [1, 17, 64, 130])
def test_any_number_of_tokens(interpreted: Run, n: int) -> None:
    interpreted(checks.statistics, Case(n, biased=bool(n % 2)))


@pytest.mark.parametrize(
    "case",
    [
        Case(33, d=80, b=2, h=3, biased=True),
        Case(65, d=24, dtype="bfloat16", biased=True),
        Case(65, d=64, dtype="float16"),
        Case(40, flavour="sharp"),
        Case(40, flavour="flat", biased=True),
    ],
    ids=str,
)
def test_any_width_type_and_numbers(interpreted: Run, case: Case) -> None:
    interpreted(checks.statistics, case)
