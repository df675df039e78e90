"""What every adapter wants of images, whatever their size."""

from __future__ import annotations

import torch
from torch import Tensor

from tokenred.core.errors import InputError

__all__ = ["check_batch"]


def check_batch(images: Tensor, channels: int, weight: Tensor, hint: str = "") -> None:
    """Refuse what is no batch of images of the weights' type.

    Args:
        images: to be ``(b, channels, H, W)``.
        channels: how many the model takes.
        weight: one of the model's.
        hint: said where the shape is another one.

    Raises:
        InputError: for another shape or type.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != channels:
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"images must be (batch, {channels}, height, width), got {got}.{hint}")
    # Not asked where the types agree: some devices (meta) know no autocast.
    fits = images.dtype == weight.dtype or torch.is_autocast_enabled(images.device.type)
    if not images.is_floating_point() or not fits:
        raise InputError(
            f"images must be {weight.dtype} like the weights, got {images.dtype}. Convert "
            "them (`images.to(dtype)`, integers scaled and normalised), or run under autocast."
        )
