"""The kernels and their engine under Triton's interpreter, against the map in float64."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.attention.cases import Case
from tests.attention.triton import checks, reductions
from tests.attention.triton.conftest import Run
from tests.attention.triton.reductions import Tokens
from tokenred.attention import AttentionSpec, AttentionStat
from tokenred.attention.triton import TritonEngine, engine
from tokenred.attention.triton.launch import blocks_for, padded

QUICK = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def cases(least: int, most: int, **more: st.SearchStrategy) -> st.SearchStrategy[Case]:
    usual = {name: st.just(value) for name, value in Case._field_defaults.items()}
    given_ = {
        "n": st.integers(least, most),
        "dtype": st.sampled_from(["float32", "bfloat16"]),
        "biased": st.booleans(),
        "flavour": st.sampled_from(["normal", "flat", "twins"]),
        "seed": st.integers(0, 2**16),
    }
    return st.builds(Case, **usual | given_ | more)


def slow(value: object) -> object:
    return pytest.param(value, marks=pytest.mark.slow)


def test_the_interpreter_runs_them(interpreted: Run) -> None:
    assert interpreted(checks.interpreting)


@pytest.mark.parametrize(
    "case",
    [
        Case(1),
        Case(17, biased=True),
        Case(65, d=24, b=2, h=3, dtype="float16", biased=True),
        Case(65, d=64, dtype="bfloat16"),
        Case(33, d=1, biased=True),
        Case(33, d=256),
        Case(197, h=1, biased=True),
        Case(40, flavour="sharp"),
        Case(40, b=2, flavour="flat", biased=True),
    ],
    ids=str,
)
def test_output_and_statistics(interpreted: Run, case: Case) -> None:
    interpreted(checks.forward, case)
    interpreted(checks.statistics, case)


def test_the_first_keys_may_be_dead(interpreted: Run) -> None:
    interpreted(checks.forward, Case(150, h=1, biased=True), dead=140)


@pytest.mark.parametrize("theta", [0.1, 0.7])
@pytest.mark.parametrize(
    "case",
    [
        Case(2, d=16, p=0),
        Case(17, d=20, b=2, h=3, biased=True),
        Case(65, d=80, dtype="bfloat16", biased=True),
        Case(40, d=64, flavour="sharp"),
        Case(40, d=64, flavour="twins"),
    ],
    ids=str,
)
def test_what_is_kept_is_the_largest(interpreted: Run, case: Case, theta: float) -> None:
    interpreted(checks.sparse, case, theta)


@pytest.mark.parametrize("theta", [0.02, 0.97])
@pytest.mark.parametrize("flavour", ["normal", "sharp", "flat", "twins"])
def test_the_threshold(interpreted: Run, flavour: str, theta: float) -> None:
    interpreted(checks.threshold, Case(40, h=1, flavour=flavour, biased=True), theta)


@pytest.mark.parametrize("slack", [0.0, 0.01])
def test_the_threshold_from_a_sample_of_rows(interpreted: Run, slack: float) -> None:
    interpreted(checks.threshold, Case(130, d=32, h=1, dtype="bfloat16"), 0.6, slack)


@QUICK
@given(
    case=cases(1, 50, d=st.sampled_from([4, 16]), h=st.just(1), p=st.just(0)),
    theta=st.floats(0.001, 0.999),
    slack=st.sampled_from([0.0, 0.01]),
)
def test_the_threshold_of_any_map(interpreted: Run, case: Case, theta: float, slack: float) -> None:
    interpreted(checks.threshold, case, theta, slack)


@pytest.mark.parametrize("theta", [0.01, 0.6])
@pytest.mark.parametrize(("n", "axes"), [(8, 8), (48, 16)])
def test_equal_entries_go_by_their_place(interpreted: Run, n: int, axes: int, theta: float) -> None:
    interpreted(checks.ties, n, theta, axes)


def test_a_sample_that_misleads_costs_time_only(interpreted: Run) -> None:
    interpreted(checks.misleading_sample, 0.5)


@pytest.mark.parametrize("theta", [1.0, 0.6])
@pytest.mark.parametrize(
    "case",
    [
        Case(1, p=0, biased=True),
        Case(17, d=20, b=2, h=3, p=5, biased=True),
        Case(65, d=80, dtype="bfloat16", biased=True),
        Case(65, d=24, dtype="float16"),
    ],
    ids=str,
)
def test_the_engine_agrees_with_the_map(interpreted: Run, case: Case, theta: float) -> None:
    interpreted(checks.engine, case, theta)


@QUICK
@given(cases(6, 70, d=st.integers(1, 40), h=st.integers(1, 3), p=st.integers(0, 5)))
def test_the_engine_on_any_block(interpreted: Run, case: Case) -> None:
    interpreted(checks.engine, case)


@pytest.mark.parametrize(
    "case",
    [
        Case(1, p=0),
        Case(16, d=16, b=2, h=3, biased=True),
        Case(65, d=24, dtype="float16", biased=True),
        Case(129, d=128, h=1, dtype="bfloat16", p=5),
        Case(197, d=64, h=1, biased=True),
        Case(256, d=96, h=1, dtype="bfloat16", biased=True),
        Case(40, flavour="sharp"),
        Case(40, b=2, flavour="flat", biased=True),
    ],
    ids=str,
)
def test_output_and_statistics_in_one_pass(interpreted: Run, case: Case) -> None:
    interpreted(checks.one_pass, case)
    interpreted(checks.one_pass_engine, case)


@QUICK
@given(
    cases(
        1, 256, d=st.integers(1, 64), h=st.integers(1, 2), p=st.just(0),
        dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    )
)  # fmt: skip
def test_one_pass_on_any_block(interpreted: Run, case: Case) -> None:
    interpreted(checks.one_pass, case)
    interpreted(checks.one_pass_engine, case)


@pytest.mark.parametrize(
    "tokens",
    [
        Tokens(1, 0),
        Tokens(2, 1, ties=True),
        Tokens(129, 128, b=1),
        Tokens(196, 8, dtype="bfloat16", ties=True),
        Tokens(1100, 300, b=1, ties=True),
    ],
    ids=str,
)
def test_the_lowest_scores_go(interpreted: Run, tokens: Tokens) -> None:
    interpreted(reductions.select, tokens)


METHODS = ["propagate", "merge", "mean", "matched", "importance", "fused", "prune", "padded"]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "tokens",
    [
        Tokens(5, 2, c=1),
        Tokens(40, 17, p=5, c=70, dead=True),
        Tokens(66, 8, p=0, b=3, c=64, dtype="bfloat16", dead=True, ties=True),
        Tokens(35, 3, c=130, dtype="float16", sized=False),
    ],
    ids=str,
)
def test_a_reduction(interpreted: Run, tokens: Tokens, name: str) -> None:
    interpreted(reductions.reduction, tokens, name)


@QUICK
@given(
    st.integers(1, 200).flatmap(
        lambda n: st.builds(
            Tokens, st.just(n), st.integers(0, n // 2), st.integers(0, 3), st.integers(1, 3),
            st.integers(1, 80), st.sampled_from(["float32", "bfloat16", "float16"]), st.booleans(),
            st.booleans(), st.booleans(), st.integers(0, 2**16),
        )
    ),
    st.sampled_from(METHODS),
)  # fmt: skip
def test_any_reduction(interpreted: Run, tokens: Tokens, name: str) -> None:
    interpreted(reductions.reduction, tokens, name)


@pytest.mark.parametrize(
    ("builder", "n", "c", "m", "dtype"),
    [
        ("semantic", 2, 1, 1, "float32"),
        ("semantic", 30, 24, 3, "float16"),
        ("semantic", 65, 40, 64, "float32"),
        ("mixed", 70, 70, 5, "bfloat16"),
        pytest.param("mixed", 1100, 16, 8, "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_a_graph(interpreted: Run, builder: str, n: int, c: int, m: int, dtype: str) -> None:
    interpreted(reductions.graph, builder, n, c, m, dtype)


@QUICK
@given(st.integers(2, 90).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, min(n - 1, 70)))))
def test_equal_neighbours_go_by_position(interpreted: Run, sizes: tuple[int, int]) -> None:
    interpreted(reductions.equal_neighbours, *sizes)


@pytest.mark.parametrize("method", ["gtp:P=3", "tome:r=3", "evit"])
def test_a_whole_model(interpreted: Run, method: str) -> None:
    interpreted(reductions.whole_model, method)


@pytest.mark.parametrize("name", ["merge", *map(slow, ("propagate", "matched"))])
def test_many_tokens(interpreted: Run, name: str) -> None:
    interpreted(reductions.reduction, Tokens(1100, 150, b=1, c=16), name)


@pytest.mark.parametrize("theta", [0.1, 0.6, 0.9])
def test_the_fast_threshold_keeps_its_promise(interpreted: Run, theta: float) -> None:
    interpreted(checks.engine, Case(100, h=1, biased=True), theta, True)


@pytest.mark.parametrize("theta", [1.0, 0.6])
def test_many_tokens_and_one_graph(interpreted: Run, theta: float) -> None:
    interpreted(checks.engine_with_large_tiles, Case(1100, h=1, biased=True), theta)
    interpreted(checks.compiled, Case(9, biased=True), theta)


def test_what_the_engine_leaves_to_others(
    interpreted: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreted(checks.refused)
    heads, _, _ = Case(9).make()
    # On the CPU it needs the interpreter, and nothing works without Triton.
    assert not TritonEngine().supports(heads, AttentionSpec((AttentionStat.diagonal(),)))
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


@pytest.mark.parametrize("major", [8, 9, 10, 12])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_tile_is_one_that_a_gpu_can_multiply(dtype: torch.dtype, major: int) -> None:
    for width in (1, 16, 24, 32, 48, 64, 72, 80, 96, 128, 160, 256):
        blocks = blocks_for(width, dtype, major)
        assert all(size & (size - 1) == 0 for size in (blocks.rows, blocks.cols, blocks.warps))
        assert min(blocks.rows, blocks.cols) >= 16
        # q once, k and v once a stage: below what compute capability 8.6 has for a block.
        rows = blocks.rows + 2 * blocks.stages * blocks.cols
        assert rows * padded(width) * dtype.itemsize <= 100 * 1024
