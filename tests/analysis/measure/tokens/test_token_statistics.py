"""Each statistic against its definition, written out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tokenred as tr
from tokenred.analysis.measure.tokens.token_statistics import (
    TOKEN_STATISTICS,
    effective_rank,
    high_frequency,
    lost_share,
    mean_cosine,
)
from tokenred.core.state import Selection
from tokenred.reduced.trace import Step


def _tokens(b: int, n: int, c: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    # Off-centre, as real tokens are: a mean that all share.
    return torch.randn(b, n, c, generator=generator) + torch.randn(b, 1, c, generator=generator)


def _naive_cosine(x: Tensor) -> float:
    n = len(x)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    each = [torch.cosine_similarity(x[i].double(), x[j].double(), dim=0).item() for i, j in pairs]
    return sum(each) / len(pairs)


def _naive_rank(x: Tensor) -> float:
    sigma = torch.linalg.svdvals(x.double()).tolist()
    p = [s / sum(sigma) for s in sigma]
    return math.exp(-sum(v * math.log(v) for v in p if v > 0))


def _naive_high(x: Tensor) -> float:
    """By the Fourier transform over the tokens, everything but frequency 0."""
    power = torch.fft.fft(x.double(), dim=0).abs().square()
    return (power[1:].sum() / power.sum()).item()


NAIVE = {"cosine": _naive_cosine, "effective_rank": _naive_rank, "high_frequency": _naive_high}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(2, 12), st.integers(1, 9), st.integers(0, 99))
def test_against_the_definition(b: int, n: int, c: int, seed: int) -> None:
    x = _tokens(b, n, c, seed)
    for name, statistic in TOKEN_STATISTICS.items():
        expected = [NAIVE[name](image) for image in x]
        assert statistic(x).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5), name


def test_known_cases() -> None:
    alike = torch.ones(1, 5, 4)
    assert mean_cosine(alike).item() == pytest.approx(1)
    assert effective_rank(alike).item() == pytest.approx(1, abs=1e-4)
    assert high_frequency(alike).item() == pytest.approx(0, abs=1e-6)
    orthogonal = torch.eye(4)[None]
    assert mean_cosine(orthogonal).item() == pytest.approx(0)
    assert effective_rank(orthogonal).item() == pytest.approx(4)
    assert high_frequency(orthogonal).item() == pytest.approx(3 / 4)
    opposite = torch.tensor([[[1.0, 2.0], [-1.0, -2.0]]])
    assert mean_cosine(opposite).item() == pytest.approx(-1)
    assert high_frequency(opposite).item() == pytest.approx(1)


def test_length_does_not_matter_to_the_cosine() -> None:
    x = _tokens(2, 6, 5)
    scaled = x * torch.rand(2, 6, 1).add(0.1)
    torch.testing.assert_close(mean_cosine(scaled), mean_cosine(x))


def test_zero_tokens() -> None:
    x = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0]] * 3])
    assert mean_cosine(x).tolist() == pytest.approx([1 / 3, 0])
    assert effective_rank(x).tolist() == pytest.approx([1, 0])
    assert high_frequency(x).tolist() == pytest.approx([1 - 2 / 3, 0])


def test_one_token() -> None:
    x = torch.tensor([[[3.0, 4.0]]])
    assert mean_cosine(x).isnan().all()
    assert effective_rank(x).item() == pytest.approx(1)
    assert high_frequency(x).item() == 0


@pytest.mark.parametrize("name", TOKEN_STATISTICS)
def test_bfloat16_and_autocast_cost_no_precision(name: str) -> None:
    statistic = TOKEN_STATISTICS[name]
    x = _tokens(3, 40, 16).bfloat16()
    exact = statistic(x.double())
    assert exact.dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, single = statistic(x), statistic(x.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(single, found)


def _step(weights: list[list[float]], keep: list[int], drop: list[int]) -> Step:
    selection = Selection(torch.tensor([keep]), torch.tensor([drop], dtype=torch.long))
    matrix = torch.tensor([weights]).to_sparse()
    return Step(0, selection, matrix, torch.zeros(1, len(drop), 2), torch.tensor([drop]))


def test_lost_by_hand() -> None:
    # Of tokens 1, 3, 4 only 3 goes into a kept one; that its weight is negative is no loss.
    weights = [[1.0, 0, 0, -0.2, 0], [0, 0, 1.0, 0, 0]]
    assert lost_share(_step(weights, [0, 2], [1, 3, 4])).item() == pytest.approx(2 / 3)
    assert lost_share(_step([[1.0, 0], [0, 1.0]], [0, 1], [])).isnan().all()


@pytest.mark.parametrize(
    ("recipe", "arguments", "expected"),
    [
        ("topk", {}, 1.0),
        ("tome", {"r": 5}, 0.0),
        ("evit", {}, 0.0),
        ("gtp", {"P": 5, "alpha": 0}, 1.0),
        ("gtp", {"P": 5, "graph": "none"}, 1.0),
    ],
)
def test_lost_by_method(
    digits: nn.Module, recipe: str, arguments: dict[str, object], expected: float
) -> None:
    fast = tr.wrap(digits, tr.strategy(recipe, **arguments))
    _, trace = fast.run_with_trace(torch.randn(2, 3, 32, 32))
    assert trace.steps
    for step in trace.steps:
        assert lost_share(step).tolist() == [expected] * 2
