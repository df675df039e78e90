"""Similarities and scores are fp32, whatever the user lets PyTorch round."""

from collections.abc import Iterator

import pytest
import torch

from tokenred.core import tensors
from tokenred.core.tensors import autocast_dtype, full_precision, multiply, product


@pytest.fixture(params=["highest", "high", "medium", "by a newer name"])
def _allowed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `torch.set_float32_matmul_precision` says; mixed settings cannot be read at all."""
    if request.param == "by a newer name":

        def unreadable() -> str:
            raise RuntimeError("PyTorch is checking the matmul precision without a specific …")

        monkeypatch.setattr(torch, "get_float32_matmul_precision", unreadable)
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield
    torch.set_float32_matmul_precision(before)


def _factors(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 70, 64, generator=generator) * torch.logspace(-3, 3, 64)
    return x.to(dtype), x.to(dtype).transpose(-2, -1)


@pytest.mark.usefixtures("_allowed")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_product_is_in_fp32(dtype: torch.dtype, autocast: bool) -> None:
    left, right = _factors(dtype)
    truth = left.double() @ right.double()
    size = (left.double().abs() @ right.double().abs()).clamp(min=1e-12)
    into = torch.empty(truth.shape, dtype=torch.promote_types(dtype, torch.float32))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = product(left, right)
        multiply(left.to(into.dtype), right.to(into.dtype), into)
    assert found.dtype == into.dtype
    for one in (found, into):
        assert ((one - truth).abs() / size).max() < 1e-6


def test_factors_that_are_rounded_are_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = _factors()
    parts = tensors._thirds(left)
    for part in parts:
        assert torch.equal(part, part.bfloat16().float())
    assert ((sum(parts) - left).abs() <= 2.0**-24 * left.abs()).all()

    monkeypatch.setattr(tensors, "rounds", lambda: True)
    left.requires_grad_()
    (gradient,) = torch.autograd.grad(product(left, right).sum(), left)
    torch.testing.assert_close(
        gradient, right.sum(dim=-1)[:, None].expand_as(left), rtol=1e-4, atol=1e-3
    )


def test_autocast_is_off_inside() -> None:
    cpu = torch.device("cpu")
    assert autocast_dtype(cpu) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert autocast_dtype(cpu) == torch.bfloat16
        with full_precision(cpu):
            assert autocast_dtype(cpu) is None
        assert autocast_dtype(cpu) == torch.bfloat16
    meta = torch.device("meta")
    assert autocast_dtype(meta) is None
    with full_precision(meta):
        pass


def test_a_compiled_product_follows_the_setting() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(product, fullgraph=True, backend="eager")
    left, right = _factors()
    truth = left.double() @ right.double()
    size = left.double().abs() @ right.double().abs()
    before = torch.get_float32_matmul_precision()
    try:
        for setting in ("highest", "medium", "highest"):
            torch.set_float32_matmul_precision(setting)
            for autocast in (False, True):
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    found = compiled(left, right)
                assert ((found - truth).abs() / size).max() < 1e-6
    finally:
        torch.set_float32_matmul_precision(before)
        torch._dynamo.reset()
