"""The threshold of θ: as many entries as asked, equal ones by their place."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.attention.triton import checks
from tests.attention.triton.cases import Case
from tests.attention.triton.conftest import Run

QUICK = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("theta", [0.02, 0.6, 0.97])
@pytest.mark.parametrize("flavour", ["normal", "sharp", "flat", "twins"])
def test_exact(interpreted: Run, flavour: str, theta: float) -> None:
    interpreted(checks.threshold, Case(50, flavour=flavour, biased=True), theta)


@pytest.mark.parametrize("slack", [0.0, 0.01])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_from_a_sample_of_rows(interpreted: Run, dtype: str, slack: float) -> None:
    interpreted(checks.threshold, Case(150, d=32, h=1, b=2, dtype=dtype), 0.6, slack)


@QUICK
@given(
    case=st.builds(
        Case,
        n=st.integers(1, 68),
        d=st.sampled_from([4, 16]),
        b=st.just(1),
        h=st.just(1),
        p=st.just(0),
        dtype=st.sampled_from(["float32", "bfloat16"]),
        biased=st.booleans(),
        flavour=st.sampled_from(["normal", "sharp", "flat", "twins"]),
        seed=st.integers(0, 2**16),
    ),
    theta=st.floats(0.001, 0.999),
    slack=st.sampled_from([0.0, 0.01]),
)
def test_any_map(interpreted: Run, case: Case, theta: float, slack: float) -> None:
    interpreted(checks.threshold, case, theta, slack)


@pytest.mark.parametrize("theta", [0.01, 0.6])
@pytest.mark.parametrize(("n", "axes"), [(8, 8), (48, 16), (80, 8)])
def test_equal_entries_go_by_their_place(interpreted: Run, n: int, axes: int, theta: float) -> None:
    interpreted(checks.ties, n, theta, axes)


def test_a_sample_that_misleads_costs_time_only(interpreted: Run) -> None:
    interpreted(checks.misleading_sample, 0.5)
