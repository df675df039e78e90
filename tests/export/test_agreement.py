"""The check: what it lets through, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import tokenred as tr
from tokenred.core.errors import ConfigError
from tokenred.export import ExportError
from tokenred.export.agreement import check_agreement, check_tolerance

OPTIONS: dict[str, Any] = {"batches": (1, 3), "tolerance": 1e-4}
EXAMPLE = torch.zeros(2, 3, 32, 32)


def test_the_same_model_agrees(vit) -> None:  # type: ignore[no-untyped-def]
    reduced = tr.wrap(vit(), tr.strategy("gtp", P=3))
    sizes = []

    def run(images: Tensor) -> Tensor:
        sizes.append(images.shape[0])
        return reduced(images)

    agreement = check_agreement(reduced, run, EXAMPLE, **OPTIONS)
    assert (agreement.difference, agreement.batches, agreement.draws) == (0.0, (1, 3), 1)
    assert sizes == [1, 3]


def test_other_tokens_do_not_agree(vit) -> None:  # type: ignore[no-untyped-def]
    model = vit()
    reduced = tr.wrap(model, tr.strategy("gtp", P=3))
    for name in ("topk", "tome", "random"):
        other = tr.wrap(model, tr.strategy(name))
        with pytest.raises(ExportError, match="at batch sizes 1, 3"):
            check_agreement(reduced, other, EXAMPLE, **OPTIONS)


def test_the_difference_is_relative_to_the_largest_logit(vit) -> None:  # type: ignore[no-untyped-def]
    model = vit()
    for factor, fine in ((1 + 5e-5, True), (1 + 2e-4, False)):
        for scale in (1e-6, 1.0, 1e6):
            model.head.weight.data *= scale
            model.head.bias.data *= scale

            def run(images: Tensor, factor: float = factor) -> Tensor:
                return model(images) * factor

            if fine:
                found = check_agreement(model, run, EXAMPLE, **OPTIONS).difference
                assert found == pytest.approx(5e-5, rel=0.05)
            else:
                with pytest.raises(ExportError, match=r"got a difference of 0\.0002"):
                    check_agreement(model, run, EXAMPLE, **OPTIONS)
            model.head.weight.data /= scale
            model.head.bias.data /= scale


@pytest.mark.parametrize("broken", [lambda y: y * torch.nan, lambda y: y[:, :-1]])
def test_no_number_and_another_shape(broken, vit) -> None:  # type: ignore[no-untyped-def]
    model = vit()
    with pytest.raises(ExportError, match="difference of inf"):
        check_agreement(model, lambda images: broken(model(images)), EXAMPLE, **OPTIONS)


def test_a_batch_size_that_does_not_run_is_named(vit) -> None:  # type: ignore[no-untyped-def]
    model = vit()

    def frozen(images: Tensor) -> Tensor:
        return model(images.view(1, 3, 32, 32))

    with pytest.raises(ExportError, match="does not run on a batch of 3: RuntimeError"):
        check_agreement(model, frozen, EXAMPLE, **OPTIONS)


def test_rounding_may_decide_about_an_image_of_a_reduced_model_only(vit) -> None:  # type: ignore[no-untyped-def]
    model = vit()
    reduced = tr.wrap(model, tr.strategy("gtp", P=3))
    calls = []

    def undecided(images: Tensor) -> Tensor:
        calls.append(images)
        return reduced(images) * (1.01 if len(calls) in (2, 3) else 1)

    agreement = check_agreement(reduced, undecided, EXAMPLE, **OPTIONS)
    assert agreement.draws == 3
    assert agreement.difference == 0.0
    assert not torch.equal(calls[0], calls[2])
    calls.clear()
    with pytest.raises(ExportError):
        check_agreement(model, undecided, EXAMPLE, **OPTIONS)
    assert len(calls) == 2


@pytest.mark.parametrize("tolerance", [0, -1e-4, float("nan"), "1e-4", None, True])
def test_what_is_no_tolerance(tolerance: object) -> None:
    with pytest.raises(ConfigError, match="tolerance must be a number above 0"):
        check_tolerance(tolerance)  # type: ignore[arg-type]
