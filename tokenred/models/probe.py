"""One fixed image, and what a model makes of it: what tells apart models that look alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tokenred.core.errors import CheckpointError

__all__ = ["Answer", "agree", "evaluating", "probe_image", "probed"]

Answer = tuple[float, ...]
_KEPT = 64
_CLOSE = {torch.float64: 1e-3, torch.float32: 1e-3}
_CLOSE_IN_HALF = 5e-2
_GOLDEN = 0.6180339887498949


def probe_image(model: nn.Module, channels: int, size: tuple[int, int]) -> Tensor:
    """An image, ``(1, channels, height, width)``: the same everywhere, on the model's device."""
    count = channels * size[0] * size[1]
    values = torch.arange(1, count + 1, dtype=torch.float64) * _GOLDEN
    weight = next(p for p in model.parameters() if p.is_floating_point())
    return (values % 1 * 4 - 2).reshape(1, channels, *size).to(weight.device, weight.dtype)


def probed(model: nn.Module, image: Tensor) -> Answer:
    """What a model says to an image, in evaluation mode: at most 64 numbers, evenly chosen.

    Raises:
        CheckpointError: for a model that does not run.
    """
    try:
        with evaluating(model), torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            given = list(_tensors(model(image)))
        flat = torch.cat([t.detach().reshape(-1).cpu().double() for t in given])
    except Exception as error:  # whatever a model runs into
        raise CheckpointError(
            f"the model does not run on an image of shape {tuple(image.shape)} "
            f"({type(error).__name__}: {error}), so that a file could not be checked against it."
        ) from error
    step = max(1, flat.numel() // _KEPT)
    return tuple(flat[::step][:_KEPT].tolist())


def agree(one: Answer, other: Answer, dtype: torch.dtype) -> bool:
    """Whether two answers are the same but for rounding in weights of this type."""
    close = _CLOSE.get(dtype, _CLOSE_IN_HALF)
    left, right = (torch.tensor(a, dtype=torch.float64) for a in (one, other))
    if left.shape != right.shape:
        return False
    scale = float(left.nan_to_num(0, 0, 0).abs().amax()) if left.numel() else 0.0
    return torch.allclose(left, right, rtol=0, atol=close * scale, equal_nan=True)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """All modules in evaluation mode, and afterwards each as it was."""
    # Of a reduced model the base is no child.
    roots = [m for m in (model, vars(model).get("base")) if isinstance(m, nn.Module)]
    before = [(module, module.training) for root in roots for module in root.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def _tensors(given: Any) -> Iterator[Tensor]:
    """The tensors in what a model returns: one, several, or a mapping of them."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, Mapping):
        yield from (t for value in given.values() for t in _tensors(value))
    elif isinstance(given, list | tuple):
        yield from (t for value in given for t in _tensors(value))
