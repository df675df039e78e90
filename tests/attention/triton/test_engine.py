"""The engine, against the plain one in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.attention.triton import checks
from tests.attention.triton.cases import Case
from tests.attention.triton.conftest import Run
from tokenred.attention import AttentionSpec, AttentionStat
from tokenred.attention.triton import TritonEngine, engine


@pytest.mark.parametrize("theta", [1.0, 0.6])
@pytest.mark.parametrize(
    "case",
    [
        Case(1, p=0, biased=True),
        Case(2, p=1),
        Case(17, d=20, b=2, h=3, p=5, biased=True),
        Case(64, d=64, p=0),
        Case(65, d=80, dtype="bfloat16", biased=True),
        Case(65, d=24, dtype="float16"),
        Case(197, h=1, biased=True),
    ],
    ids=str,
)
def test_agrees_with_the_map(interpreted: Run, case: Case, theta: float) -> None:
    interpreted(checks.engine, case, theta)


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    case=st.builds(
        Case,
        n=st.integers(6, 70),
        d=st.integers(1, 40),
        b=st.integers(1, 2),
        h=st.integers(1, 3),
        p=st.integers(0, 5),
        dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
        biased=st.booleans(),
        flavour=st.sampled_from(["normal", "flat", "twins"]),
        seed=st.integers(0, 2**16),
    )
)
def test_any_block(interpreted: Run, case: Case) -> None:
    interpreted(checks.engine, case)


@pytest.mark.parametrize("theta", [0.1, 0.6, 0.9])
def test_the_fast_threshold_keeps_its_promise(interpreted: Run, theta: float) -> None:
    interpreted(checks.engine, Case(100, p=1, biased=True), theta, True)


@pytest.mark.parametrize("theta", [1.0, 0.6])
def test_many_tokens(interpreted: Run, theta: float) -> None:
    interpreted(checks.engine_with_large_tiles, Case(1100, h=1, biased=True), theta)


@pytest.mark.parametrize("theta", [1.0, 0.6])
def test_compiles_into_one_graph(interpreted: Run, theta: float) -> None:
    interpreted(checks.compiled, Case(9, biased=True), theta)


def test_leaves_to_others_what_it_cannot_do(interpreted: Run) -> None:
    interpreted(checks.refused)


def test_answers_on_the_cpu_only_under_the_interpreter() -> None:
    heads, _, _ = Case(9).make()
    assert not TritonEngine().supports(heads, AttentionSpec((AttentionStat.diagonal(),)))


def test_without_triton_it_supports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    heads, _, _ = Case(9).make()
    monkeypatch.setattr(engine, "_DEVICES", ("cpu",))
    monkeypatch.setattr(engine, "_INSTALLED", True)
    assert TritonEngine().supports(heads, AttentionSpec())
    monkeypatch.setattr(engine, "_INSTALLED", False)
    assert not TritonEngine().supports(heads, AttentionSpec())


def test_old_gpus_are_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        major = 7

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    assert not engine.is_modern(torch.device("cuda"))
    monkeypatch.setattr(Properties, "major", 9)
    assert engine.is_modern(torch.device("cuda"))
