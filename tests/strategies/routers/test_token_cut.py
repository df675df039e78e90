"""The token cut loss, by loops over its definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenred.attention import QKV
from tokenred.strategies.routers.idle import mean_logits, token_cut

QUICK = settings(max_examples=30, deadline=None, derandomize=True)


def drawn(seed: int, n: int = 5, p: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, p + n, p + n, generator=generator, dtype=torch.float64) * 2
    image = (torch.rand(2, n, generator=generator) < 0.5).double()
    return logits, torch.cat((torch.ones(2, p).double(), image), dim=1)


@QUICK
@given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 3))
def test_the_definition(seed: int, n: int, p: int) -> None:
    logits, mask = drawn(seed, n, p)
    for b in range(2):
        m, inter, intra = mask[b].tolist(), [], []
        for i in range(p + n):
            exp = [math.exp(x) for x in logits[b, i].tolist()]
            w = [x / sum(exp) for x in exp]
            inter.append(sum(abs(m[i] - m[j]) * w[j] for j in range(p, p + n)) ** 2)
            intra.append((sum(m[i] * m[j] * w[j] for j in range(p + n)) - m[i]) ** 2)
        expected = {"inter": sum(inter) / (p + n), "intra": sum(intra) / (p + n)}
        expected |= {"both": sum(expected.values()), "none": 0.0}
        for cut, value in expected.items():
            assert token_cut(logits, mask, p, cut)[b].item() == pytest.approx(value, abs=1e-12)


def test_attention_that_stays_on_its_side_costs_nothing() -> None:
    mask = torch.tensor([[1.0, 1, 0, 0, 1], [1, 0, 0, 0, 1]]).double()
    apart = (mask[:, :, None] - mask[:, None, :]).abs()
    assert token_cut(-1e4 * apart, mask).max() < 1e-12
    assert token_cut(1e4 * apart, mask).min() > 0.3


def test_everybody_chosen_costs_nothing() -> None:
    logits, mask = drawn(5)
    torch.testing.assert_close(token_cut(logits, torch.ones_like(mask)), torch.zeros(2).double())


@pytest.mark.parametrize("cut", ["both", "inter", "intra"])
def test_gradients(cut: str) -> None:
    logits, mask = drawn(6)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: token_cut(x, mask, cut=cut), logits)
    fixed = mask.clone().requires_grad_()
    token_cut(logits, fixed, cut=cut).sum().backward()
    assert fixed.grad is None


def test_half_precision_is_summed_in_single() -> None:
    logits, mask = drawn(7, n=400)
    low = logits.bfloat16()
    got = token_cut(low, mask)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), token_cut(low.double(), mask), rtol=1e-5, atol=1e-7)


def test_the_mean_over_heads_needs_no_head_by_itself() -> None:
    generator = torch.Generator().manual_seed(8)
    q, k, v = (torch.randn(2, 3, 7, 4, generator=generator).double() for _ in range(3))
    heads = QKV(q, k, v, scale=0.37)
    expected = (q @ k.transpose(-2, -1) * 0.37).mean(dim=1)
    torch.testing.assert_close(mean_logits(heads), expected)
