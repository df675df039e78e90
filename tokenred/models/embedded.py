"""The models that come with the package, by the names that `load_model` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from timm.models.vision_transformer import VisionTransformer

from tokenred.models.cifar10_vit import cifar10_vit
from tokenred.models.digits_vit import digits_vit

__all__ = ["EMBEDDED_MODELS"]

EMBEDDED_MODELS: Final[dict[str, Callable[[bool], VisionTransformer]]] = {
    "digits": digits_vit,
    "cifar10_vit": cifar10_vit,
}
"""Called with whether to load the embedded weights."""
