"""Output and statistics through the entries that θ keeps."""

from __future__ import annotations

import pytest

from tests.attention.triton import checks
from tests.attention.triton.cases import Case
from tests.attention.triton.conftest import Run


@pytest.mark.parametrize("theta", [0.1, 0.7])
@pytest.mark.parametrize(
    "case",
    [
        Case(2, d=16, p=0),
        Case(17, d=20, b=2, h=3, biased=True),
        Case(65, d=72),
        Case(65, d=80, dtype="bfloat16", biased=True),
        Case(40, d=64, flavour="sharp"),
        Case(40, d=64, flavour="flat", biased=True),
        Case(40, d=64, flavour="twins"),
    ],
    ids=str,
)
def test_what_is_kept_is_the_largest(interpreted: Run, case: Case, theta: float) -> None:
    interpreted(checks.sparse, case, theta)
