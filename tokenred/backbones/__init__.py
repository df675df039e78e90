"""Adapters: the only code that knows how a model's blocks are built."""

from __future__ import annotations

from torch import nn

from tokenred.backbones.base import Backbone, BlockAnatomy, Embedded
from tokenred.core import plugins
from tokenred.core.errors import BackboneError

__all__ = ["Backbone", "BlockAnatomy", "Embedded", "adapt", "register_backbone"]

_BACKBONES: list[type[Backbone]] = []


def register_backbone(backbone: type[Backbone]) -> type[Backbone]:
    """Class decorator that makes a family of models known; the latest is asked first."""
    _BACKBONES.insert(0, backbone)
    plugins.note("backbone", backbone.__name__, lambda: _BACKBONES.remove(backbone))
    return backbone


def adapt(model: nn.Module) -> Backbone:
    """The adapter of a model.

    Raises:
        BackboneError: for a model that no adapter knows, with what they know.
    """
    if not isinstance(model, nn.Module):
        raise BackboneError(
            f"expected a model (an nn.Module), got {model!r}. Create one with timm.create_model."
        )
    _load()
    plugins.load_plugins()
    for backbone in _BACKBONES:
        if backbone.knows(model):
            return backbone(model)
    raise BackboneError(
        f"no adapter knows {type(model).__name__}. Known: "
        f"{'; '.join(b.family for b in _BACKBONES)}. "
        "Write one (tokenred.backbones.Backbone) and register it with register_backbone."
    )


def _load() -> None:
    # timm is imported when a model is wrapped, not when tokenred is.
    from tokenred.backbones.beit import BeitBackbone
    from tokenred.backbones.eva import EvaBackbone
    from tokenred.backbones.huggingface import HuggingFaceViT
    from tokenred.backbones.lvvit import LVViTBackbone
    from tokenred.backbones.vision_transformer import TimmViT

    for backbone in (TimmViT, EvaBackbone, BeitBackbone, LVViTBackbone, HuggingFaceViT):
        if backbone not in _BACKBONES:
            _BACKBONES.append(backbone)
