"""What the classes of a model are called."""

from __future__ import annotations

from timm.data import ImageNetInfo
from torch import nn

from tokenred.data.digits import DIGITS_CLASSES

__all__ = ["class_names"]

_IMAGENET_SIZE = 1000


def class_names(model: nn.Module) -> tuple[str, ...] | None:
    """Names of a model's classes, in the order of its outputs.

    Args:
        model: the embedded digits model, or one of timm's. A timm model of 1000 classes is taken
            for one of ImageNet-1k.

    Returns:
        The names, or None where they are not known.
    """
    recorded = dict(getattr(model, "pretrained_cfg", None) or {})
    classes = getattr(model, "num_classes", None)
    if recorded.get("architecture") == "digits_vit":
        return DIGITS_CLASSES
    own = recorded.get("label_names")
    if own is not None and len(own) == classes:
        return tuple(map(str, own))
    if classes == _IMAGENET_SIZE:
        info = ImageNetInfo("imagenet-1k")
        return tuple(info.index_to_description(i) for i in range(_IMAGENET_SIZE))
    return None
