"""The output and the log-sum-exp, against the map in float64."""

from __future__ import annotations

import pytest

from tests.attention.triton import checks
from tests.attention.triton.cases import Case
from tests.attention.triton.conftest import Run


def test_the_interpreter_runs_them(interpreted: Run) -> None:
    assert interpreted(checks.interpreting)


@pytest.mark.parametrize("n", [1, 17, 64, 65, 197])
@pytest.mark.parametrize("biased", [False, True])
def test_any_number_of_tokens(interpreted: Run, n: int, biased: bool) -> None:
    interpreted(checks.forward, Case(n, biased=biased))


@pytest.mark.parametrize("d", [1, 20, 64, 80, 160, 256])
def test_any_width_of_a_head(interpreted: Run, d: int) -> None:
    interpreted(checks.forward, Case(33, d=d, biased=True))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("d", [24, 64])
def test_16_bits(interpreted: Run, dtype: str, d: int) -> None:
    interpreted(checks.forward, Case(65, d=d, b=2, h=3, dtype=dtype, biased=True))


@pytest.mark.parametrize("flavour", ["sharp", "flat", "twins"])
def test_any_numbers(interpreted: Run, flavour: str) -> None:
    interpreted(checks.forward, Case(40, b=2, flavour=flavour, biased=True))


def test_the_first_keys_may_be_dead(interpreted: Run) -> None:
    interpreted(checks.first_keys_dead)


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
