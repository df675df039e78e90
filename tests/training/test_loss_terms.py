"""Each term by its definition, its gradient, and in half precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tokenred.core.errors import ConfigError, InputError
from tokenred.training.losses import (
    cross_entropy,
    distillation_kl,
    kept_token_mse,
    ratio_loss,
    unit_feature_mse,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def probabilities(x: Tensor) -> np.ndarray:
    exp = np.exp(x.numpy())
    return exp / exp.sum(axis=1, keepdims=True)


# What the teacher says, in numbers that half precision has.
LOGITS, TEACHER = randn(4, 6), randn(4, 6, seed=1).bfloat16().double()
FEATURES, DENSE = randn(4, 2 + 3, 5), randn(4, 2 + 7, 5, seed=1).bfloat16().double()
INDEX = torch.tensor([[0, 2, 6], [1, 3, -1], [4, 5, 6], [6, 0, -1]])
MASK = torch.tensor([[1, 1, 1, 0, 1], [1, 1, 0, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]).double()
SHARES, TARGETS = torch.rand(4, 3).double(), torch.tensor([0.7, 0.49, 0.343])


# ---------------------------------------------------------------- by the definition


def test_cross_entropy_of_classes_and_of_probabilities() -> None:
    log = np.log(probabilities(LOGITS))
    classes = torch.tensor([3, 0, 5, 5])
    expected = -np.mean([log[i, k] for i, k in enumerate(classes)])
    assert cross_entropy(LOGITS, classes).item() == pytest.approx(expected)
    mixed = torch.from_numpy(probabilities(TEACHER))
    expected = -np.mean((mixed.numpy() * log).sum(axis=1))
    assert cross_entropy(LOGITS, mixed.float()).item() == pytest.approx(expected)
    smooth = 0.9 * torch.nn.functional.one_hot(classes, 6) + 0.1 / 6
    assert cross_entropy(LOGITS, classes, 0.1).item() == pytest.approx(
        cross_entropy(LOGITS, smooth).item()
    )


@pytest.mark.parametrize("over", ["student", "teacher"])
def test_kl(over: str) -> None:
    student, teacher = probabilities(LOGITS), probabilities(TEACHER)
    p, q = (student, teacher) if over == "student" else (teacher, student)
    expected = np.mean((p * np.log(p / q)).sum(axis=1))
    assert distillation_kl(LOGITS, TEACHER, over).item() == pytest.approx(expected)
    assert distillation_kl(LOGITS, LOGITS + 3, over).item() == pytest.approx(0, abs=1e-12)
    # A teacher that rules a class out: one direction minds, neither breaks.
    ruled = TEACHER.clone()
    ruled[:, 0] = -1e4
    assert distillation_kl(LOGITS, ruled, over).isfinite()


def test_kept_tokens_are_set_against_their_own_patches() -> None:
    errors = []
    for b, row in enumerate(INDEX.tolist()):
        for place, patch in enumerate(row):
            if patch >= 0 and MASK[b, 2 + place]:
                difference = FEATURES[b, 2 + place] - DENSE[b, 2 + patch]
                errors.append(difference.square().mean().item())
    assert len(errors) == 5
    assert kept_token_mse(FEATURES, DENSE, INDEX, MASK).item() == pytest.approx(np.mean(errors))
    everyone = kept_token_mse(FEATURES, DENSE, INDEX).item()
    assert everyone == pytest.approx(
        kept_token_mse(FEATURES, DENSE, INDEX, torch.ones_like(MASK)).item()
    )
    assert kept_token_mse(FEATURES, DENSE, INDEX, MASK * 0).item() == 0
    grown = DENSE.clone()
    grown[:, 2:] = 0
    assert kept_token_mse(grown[:, :5], DENSE * 0, INDEX) == 0


def test_unit_features() -> None:
    def unit(x: Tensor) -> np.ndarray:
        return x.numpy() / np.linalg.norm(x.numpy(), axis=-1, keepdims=True)

    dense = DENSE[:, :5]
    expected = ((unit(FEATURES) - unit(dense)) ** 2).mean()
    assert unit_feature_mse(FEATURES, dense).item() == pytest.approx(expected)
    assert unit_feature_mse(FEATURES, FEATURES * 7).item() == pytest.approx(0, abs=1e-12)


def test_ratio() -> None:
    expected = ((SHARES.numpy() - TARGETS.numpy()) ** 2).mean()
    assert ratio_loss(SHARES, TARGETS).item() == pytest.approx(expected)
    assert ratio_loss(SHARES, TARGETS.expand(4, 3)).item() == pytest.approx(expected)
    # Each image by itself: two wrongs of opposite sign make no right.
    assert ratio_loss(torch.tensor([[0.6], [0.8]]), torch.tensor([0.7])) > 0.009


# ---------------------------------------------------------------- gradients and precision

TERMS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "ce": (lambda x: cross_entropy(x, torch.tensor([3, 0, 5, 5]), 0.1), LOGITS),
    "soft ce": (lambda x: cross_entropy(x, TEACHER.softmax(-1)), LOGITS),
    "kl student": (lambda x: distillation_kl(x, TEACHER.to(x.dtype)), LOGITS),
    "kl teacher": (lambda x: distillation_kl(x, TEACHER.to(x.dtype), "teacher"), LOGITS),
    "kept tokens": (lambda x: kept_token_mse(x, DENSE.to(x.dtype), INDEX, MASK), FEATURES),
    "unit features": (lambda x: unit_feature_mse(x, DENSE[:, :5].to(x.dtype)), FEATURES),
    "ratio": (lambda x: ratio_loss(x, TARGETS), SHARES),
}


@pytest.mark.parametrize("name", TERMS)
def test_gradients(name: str) -> None:
    term, x = TERMS[name]
    assert torch.autograd.gradcheck(term, x.clone().requires_grad_())


def test_teacher_and_mask_are_constants() -> None:
    logits, dense, mask = (t.clone().requires_grad_() for t in (TEACHER, DENSE, MASK))
    x, features = LOGITS.clone().requires_grad_(), FEATURES.clone().requires_grad_()
    total = distillation_kl(x, logits) + distillation_kl(x, logits, "teacher")
    total = total + kept_token_mse(features, dense, INDEX, mask)
    total = total + unit_feature_mse(features, dense[:, :5])
    total.backward()
    assert x.grad is not None
    assert features.grad is not None
    assert logits.grad is None
    assert dense.grad is None
    assert mask.grad is None


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", TERMS)
def test_half_precision_is_summed_in_single(name: str, dtype: torch.dtype, autocast: bool) -> None:
    term, x = TERMS[name]
    low = x.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got = term(low)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), term(low.double()), rtol=1e-5, atol=1e-7)


def test_a_large_batch_does_not_overflow_half_precision() -> None:
    features = torch.full((2, 9, 5), 200.0, dtype=torch.float16)
    index = torch.arange(8).expand(2, 8)
    assert kept_token_mse(features, -features, index).item() == 160000


# ---------------------------------------------------------------- refusals


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"targets must be \(4,\) integers or \(4, 6\) prob"):
        cross_entropy(LOGITS, torch.zeros(4, 5))
    with pytest.raises(InputError, match=r"got \(4,\) of torch.float32"):
        cross_entropy(LOGITS, torch.zeros(4))
    with pytest.raises(InputError, match="a teacher with the same classes"):
        distillation_kl(LOGITS, TEACHER[:, :5])
    with pytest.raises(ConfigError, match="'student' or 'teacher'"):
        distillation_kl(LOGITS, TEACHER, "both")
    with pytest.raises(InputError, match=r"\(4, at least 5, 5\).*got \(4, 9, 4\)"):
        kept_token_mse(FEATURES, DENSE[..., :4], INDEX)
    with pytest.raises(InputError, match=r"got \(4, 4, 5\)"):
        unit_feature_mse(FEATURES, DENSE[:, :4])
