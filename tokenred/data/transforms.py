"""The preprocessing that a model was trained for, from images to its input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn

from tokenred.core.errors import ConfigError
from tokenred.data.cifar10 import CIFAR10_MEAN, CIFAR10_STD

__all__ = ["check_statistics", "eval_transform"]


def eval_transform(
    model: nn.Module,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    data: str | None = None,
) -> Callable[[Image.Image], Tensor]:
    """Make the model's own evaluation preprocessing.

    An image that already has the model's size passes unresized where the model crops nothing.

    Args:
        model: its ``pretrained_cfg`` says what it wants; what that leaves open is timm's
            default. The size is the model's own ``patch_embed.img_size`` where it has one.
        mean: overrides the model's, one number a channel in 0..1.
        std: overrides the model's, one number a channel.
        data: the dataset's name; with ``"cifar10"``, a model that records no statistics of its
            own gets CIFAR-10's.

    Returns:
        From an RGB image to a tensor (3, height, width).

    Raises:
        ConfigError: if ``mean`` or ``std`` is not three numbers, or a ``std`` is not positive.
    """
    recorded: dict[str, Any] = dict(getattr(model, "pretrained_cfg", None) or {})
    if data == "cifar10":
        mean = mean or recorded.get("mean") or CIFAR10_MEAN
        std = std or recorded.get("std") or CIFAR10_STD
    overrides: dict[str, Any] = {}
    for name, values in (("mean", mean), ("std", std)):
        if values is not None:
            overrides[name] = check_statistics(name, values)
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if size is not None:
        # A model built for another img_size keeps the old one in its pretrained_cfg.
        overrides["input_size"] = (3, *size)
    config = resolve_model_data_config(model, args=overrides, pretrained_cfg=recorded)
    transform = create_transform(**config, is_training=False)
    return cast("Callable[[Image.Image], Tensor]", transform)


def check_statistics(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """Check a mean or a standard deviation of pixels, given channel by channel.

    Args:
        name: ``"mean"`` or ``"std"``.
        values: one number per colour channel, on the scale where pixels run from 0 to 1.

    Returns:
        The values as floats.

    Raises:
        ConfigError: unless there are three finite numbers, positive for ``"std"``.
    """
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    ok = len(numbers) == 3 and all(math.isfinite(number) for number in numbers)
    if not ok or (name == "std" and min(numbers) <= 0):
        kind = "positive numbers" if name == "std" else "numbers"
        raise ConfigError(
            f"expected {name} as three {kind}, one a colour channel, got {values!r}; pixels run "
            "from 0 to 1 there."
        )
    return numbers
