"""What a model costs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tokenred.backbones import adapt
from tokenred.core.errors import InputError
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.wrap import wrap
from tokenred.strategies.strategy import Strategy

__all__ = ["dense", "gmacs"]


def gmacs(model: nn.Module, image_shape: Sequence[int] | None = None) -> float:
    """Cost of one image in 10⁹ multiply-accumulates, in closed form.

    Counts the backbone at the token counts that really run, and parts with weights. What a method
    spends on choosing and fusing is not in it: see ``reduced.cost().overhead_gmacs``. Where the
    images decide how many tokens go (``ats``), this is the most that one may cost, and
    `tokenred.analysis.adaptive_cost` counts what images do cost.

    Args:
        model: a `ReducedViT`, or a dense model that an adapter knows.
        image_shape: ``(channels, height, width)`` or ``(height, width)``; None for the model's own.

    Raises:
        BackboneError: for a model that no adapter knows.
        InputError: for another shape.
    """
    size = None
    if image_shape is not None:
        if len(image_shape) not in (2, 3):
            raise InputError(f"image_shape is (channels, height, width), got {tuple(image_shape)}.")
        size = (int(image_shape[-2]), int(image_shape[-1]))
    reduced = model if isinstance(model, ReducedViT) else dense(model)
    return reduced.cost(size).gmacs


def dense(model: nn.Module) -> ReducedViT:
    """A model wrapped with nothing removed."""
    adapt(model)
    return wrap(model, Strategy.dense())
