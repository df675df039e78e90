"""Masked attention: the formula by loops, what leaks, gradients, precision."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenred.core.state import TokenState
from tokenred.strategies.score_mods import PolicyMask

QUICK = settings(max_examples=30, deadline=None, derandomize=True)


def state_of(mask: Tensor | None, n: int) -> TokenState:
    memory = {} if mask is None else {"mask": mask}
    return TokenState(torch.zeros(1, n, 1), torch.arange(n)[None], 0, (1, n), memory=memory)


def drawn(seed: int, b: int = 2, h: int = 2, n: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(b, h, n, n, generator=generator, dtype=torch.float64) * 3
    mask = (torch.rand(b, n, generator=generator) < 0.6).double()
    return logits, mask


@QUICK
@given(st.integers(0, 999), st.sampled_from((0.0, 1e-6, 0.1)))
def test_the_formula(seed: int, epsilon: float) -> None:
    logits, mask = drawn(seed)
    got = PolicyMask(epsilon).normalize(logits, state_of(mask, 5))
    assert got is not None
    for b in range(2):
        for h in range(2):
            for i in range(5):
                row = logits[b, h, i].tolist()
                gate = [1.0 if i == j else mask[b, j].item() for j in range(5)]
                exp = [math.exp(s - max(row)) * g for s, g in zip(row, gate, strict=True)]
                expected = [(e + epsilon / 5) / (sum(exp) + epsilon) for e in exp]
                torch.testing.assert_close(got[b, h, i], torch.tensor(expected).double())
    torch.testing.assert_close(got.sum(dim=-1), torch.ones(2, 2, 5).double())


def test_gradients() -> None:
    logits, mask = drawn(2, b=1, h=1, n=4)
    logits.requires_grad_()
    soft = (mask * 0.6 + 0.2).requires_grad_()

    def run(x: Tensor, m: Tensor) -> Tensor | None:
        return PolicyMask(0.01).normalize(x, state_of(m, 4))

    assert torch.autograd.gradcheck(run, (logits, soft))


def test_a_hidden_key_still_tells_its_mask_what_it_would_be_worth() -> None:
    logits, mask = drawn(3, b=1)
    mask.requires_grad_()
    got = PolicyMask().normalize(logits, state_of(mask, 5))
    assert got is not None
    got[0, 0, 0].square().sum().backward()
    assert mask.grad is not None
    assert (mask.grad[0, 1:] != 0).all()
    assert mask.grad[0, 0] == 0  # a token always sees itself


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_in_single_precision_at_least(dtype: torch.dtype) -> None:
    logits, mask = drawn(4, n=64)
    low = logits.to(dtype)
    got = PolicyMask().normalize(low, state_of(mask.float(), 64))
    expected = PolicyMask().normalize(low.double(), state_of(mask, 64))
    assert got is not None
    assert expected is not None
    assert got.dtype == dtype
    # One rounding, of the result; 1e-6 / 64 would be lost in half precision otherwise.
    torch.testing.assert_close(got.double(), expected.to(dtype).double(), rtol=2e-2, atol=1e-7)


def test_before_the_first_stage_the_mask_is_of_ones() -> None:
    logits, _ = drawn(5)
    for epsilon in (0.0, 0.1):
        mod = PolicyMask(epsilon)
        ones = mod.normalize(logits, state_of(torch.ones(2, 5), 5))
        assert torch.equal(mod.normalize(logits, state_of(None, 5)), ones)
        assert torch.allclose(ones, logits.softmax(dim=-1)) == (epsilon == 0)
    assert PolicyMask()(logits, state_of(None, 5)) is logits
    assert PolicyMask().in_training_only
