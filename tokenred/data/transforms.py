"""The preprocessing that a model was trained for, from images to its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn

from tokenred.data.cifar10 import CIFAR10_MEAN, CIFAR10_STD
from tokenred.data.statistics import check_statistics

__all__ = ["eval_transform"]


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
