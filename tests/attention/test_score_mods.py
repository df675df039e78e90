"""θ and log s: how many entries stay, which, and what a dead token gets."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.attention import size_bias, sparsify
from tokenred.attention.score_mods import kept_entries

QUICK = settings(max_examples=100, deadline=None, derandomize=True)
# As they are written in a table: at most three decimals.
THETAS = st.integers(1, 1000).map(lambda thousandths: Fraction(thousandths, 1000))


def random_map(shape: tuple[int, ...], seed: int, levels: int | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if levels is not None:
        return torch.randint(1, levels + 1, shape, generator=generator).double() / levels
    return torch.rand(shape, generator=generator, dtype=torch.float64) + 0.01


@QUICK
@given(st.integers(1, 1000), THETAS)
def test_the_ceiling_of_theta_n_squared_is_counted_exactly(tokens: int, theta: Fraction) -> None:
    total = tokens * tokens
    assert kept_entries(tokens, float(theta)) == math.ceil(theta * total)
    k = int(total * (1 - float(theta)))
    assert kept_entries(tokens, float(theta), reference=True) == min(total, total - k + 1)


@QUICK
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), THETAS, st.integers(0, 9999))
def test_exactly_that_many_entries_stay_in_each_head(
    b: int, h: int, tokens: int, theta: Fraction, seed: int
) -> None:
    attention = random_map((b, h, tokens, tokens), seed)
    found = sparsify(attention, float(theta))
    kept = math.ceil(theta * tokens * tokens)
    assert ((found != 0).sum(dim=(-2, -1)) == kept).all()
    # What stays is what was, not renormalised, and nothing larger went.
    assert torch.equal(found[found != 0], attention[found != 0])
    for image, head in np.ndindex(b, h):
        flat = attention[image, head].flatten()
        smallest = found[image, head][found[image, head] != 0].min()
        gone = flat[found[image, head].flatten() == 0]
        assert not len(gone) or gone.max() <= smallest


@QUICK
@given(st.integers(1, 8), st.integers(1, 3), THETAS, st.integers(0, 9999))
def test_ties_are_kept_by_position(tokens: int, levels: int, theta: Fraction, seed: int) -> None:
    attention = random_map((2, 2, tokens, tokens), seed, levels)
    found = sparsify(attention, float(theta))
    kept = math.ceil(theta * tokens * tokens)
    for image, head in np.ndindex(2, 2):
        flat = attention[image, head].flatten().tolist()
        best = sorted(range(len(flat)), key=lambda i, flat=flat: (-flat[i], i))[:kept]
        expected = [value if i in best else 0.0 for i, value in enumerate(flat)]
        assert found[image, head].flatten().tolist() == expected
    # Alone as in a batch.
    assert torch.equal(sparsify(attention[1:], float(theta)), found[1:])


def test_the_authors_program_keeps_one_more() -> None:
    attention = random_map((1, 2, 10, 10), 0)
    for reference in (True, False):
        assert sparsify(attention, 1.0, reference) is attention
    assert kept_entries(10, 0.07) == 7  # 0.07 · 100 is 7.000…1 to the machine
    assert kept_entries(10, 1e-9) == 1
    ours, theirs = sparsify(attention, 0.6), sparsify(attention, 0.6, reference=True)
    assert ((ours != 0).sum(dim=(-2, -1)) == 60).all()
    assert ((theirs != 0).sum(dim=(-2, -1)) == 61).all()
    assert torch.equal(theirs[ours != 0], ours[ours != 0])
    # Their rule as it is written: every entry that is at least the k-th smallest.
    threshold = attention.flatten(2).sort().values[..., int(100 * (1 - 0.6)) - 1]
    assert torch.equal(theirs != 0, attention >= threshold[..., None, None])


def test_gradients_pass_through_what_stays() -> None:
    attention = random_map((1, 1, 4, 4), 2).requires_grad_()
    found = sparsify(attention, 0.5)
    found.sum().backward()
    assert torch.equal(attention.grad, (found != 0).double())


def test_proportional_attention_is_the_log_of_the_size() -> None:
    bias = size_bias(torch.tensor([[1.0, 2.0, 0.5, 0.0]]))
    assert bias.tolist() == [
        [0.0, pytest.approx(math.log(2)), pytest.approx(-math.log(2)), -math.inf]
    ]
