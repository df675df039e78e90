"""Saying what differs: between two results, and in inputs that must stay as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["require", "require_close", "require_same", "tensors_in", "untouched"]


def require(holds: bool, message: str) -> None:
    """Fail with a message unless something holds."""
    if not holds:
        raise AssertionError(message)


def tensors_in(value: object, name: str = "result") -> dict[str, Tensor]:
    """All tensors inside an object (dataclasses, mappings, tuples), by where they stand."""
    if isinstance(value, Tensor):
        return {name: value}
    found: dict[str, Tensor] = {}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            found |= tensors_in(getattr(value, field.name), f"{name}.{field.name}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            found |= tensors_in(item, f"{name}[{key}]")
    elif isinstance(value, tuple | list):
        for place, item in enumerate(value):
            found |= tensors_in(item, f"{name}[{place}]")
    return found


def require_same(one: object, other: object, what: str) -> None:
    """Fail unless two results hold exactly the same tensors."""
    first, second = tensors_in(one), tensors_in(other)
    require(first.keys() == second.keys(), f"{what}: {sorted(first)} and {sorted(second)}")
    for name, tensor in first.items():
        if not _equal(tensor, second[name]):
            raise AssertionError(f"{what}: {name} is {tensor} and {second[name]}")


def require_close(one: Tensor, other: Tensor, what: str, scale: float = 1.0) -> None:
    """Fail unless two tensors agree up to rounding in the coarser type of the two.

    Args:
        scale: size of the numbers that went into the computation.
    """
    require(one.shape == other.shape, f"{what}: shapes {tuple(one.shape)}, {tuple(other.shape)}")
    coarse = max(torch.finfo(t.dtype).eps for t in (one, other))
    a, b = one.detach().double(), other.detach().double()
    context = 200 * coarse * (scale + b.abs())
    off = (a - b).abs()
    # "not <=" and no ">": NaN is never close.
    if bool((~((off <= context) | (a == b))).any()):
        raise AssertionError(f"{what}: off by up to {off.max().item():.3g}")


@contextmanager
def untouched(**inputs: object) -> Iterator[None]:
    """Fail if a tensor inside one of the inputs changes while the body runs."""
    before = [
        (name, tensor, tensor.detach().clone())
        for label, value in inputs.items()
        for name, tensor in tensors_in(value, label).items()
    ]
    yield
    for name, tensor, old in before:
        require(_equal(tensor.detach(), old), f"{name} was changed in place")


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())
