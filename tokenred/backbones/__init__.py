"""Adapters: the only code that knows how a model's blocks are built."""

from collections.abc import Sequence
from textwrap import shorten
from typing import Any

from torch import nn

from tokenred.backbones.base import Backbone, BlockAdapter, Embedded
from tokenred.core import plugins
from tokenred.core.errors import BackboneError, shown
from tokenred.core.info import ModelInfo

__all__ = ["Backbone", "BlockAdapter", "Embedded", "adapt", "feature_info", "register_backbone"]

# Libraries whose classes the adapters know, and methods whose override makes a different model.
_LIBRARIES = ("timm", "transformers", "tokenred")
_METHODS = (
    "__call__", "forward", "forward_features", "forward_head", "_pos_embed", "pool",
)  # fmt: skip

_LONGEST = 399
_BACKBONES: list[type[Backbone]] = []


def register_backbone(backbone: type[Backbone]) -> type[Backbone]:
    """Class decorator that registers an adapter; the latest is asked first."""
    _BACKBONES.insert(0, backbone)
    plugins.note("backbone", backbone.__name__, lambda: _BACKBONES.remove(backbone))
    return backbone


def adapt(model: nn.Module) -> Backbone:
    """The adapter of a model.

    Raises:
        BackboneError: if no adapter knows the model; the message lists the families they know.
    """
    if not isinstance(model, nn.Module):
        raise BackboneError(
            f"expected an nn.Module, got {shown(model)}. Create one with timm.create_model or "
            "tokenred.models.load_model."
        )
    _load()
    plugins.load_plugins()
    for backbone in _BACKBONES:
        if backbone.knows(model):
            made = backbone(model)
            if not made.blocks:
                raise BackboneError(f"{type(model).__name__} has no blocks to reduce tokens in.")
            return made
    raise BackboneError(_refusal(model))


def feature_info(info: ModelInfo, out_indices: Sequence[int]) -> Any:
    """The ``FeatureInfo`` that timm's decoders expect of an encoder with these features."""
    from timm.models import FeatureInfo

    stride = None if info.patch_size is None else max(info.patch_size)
    told = FeatureInfo(
        [
            {"num_chs": info.width, "reduction": stride or 1, "module": f"blocks.{i}", "index": i}
            for i in range(info.depth)
        ],
        tuple(out_indices),
    )
    for block in told.info:
        block["reduction"] = stride  # whose check refuses an unknown one
    return told


def _refusal(model: nn.Module) -> str:
    """The message for a model that no adapter knows: its class, the reason, what to do."""
    kind = type(model)
    who = f"{kind.__module__}.{kind.__qualname__}"
    for name in ("_orig_mod", "module"):  # torch.compile; DataParallel and similar wrappers
        if isinstance(model._modules.get(name), nn.Module):
            return f"no adapter knows {who}. Wrap the model inside: tokenred.wrap(model.{name}, …)."
    known = "; ".join(b.family.partition(" (")[0] for b in _BACKBONES)
    do = "Choose a model of a known family" if _library(kind) else "Create it with timm"
    do += ", or write an adapter (tokenred.backbones.register_backbone)."
    base = next((b for b in kind.__mro__[1:] if _library(b)), None)
    if base is not None:
        changed = [n for n in _METHODS if getattr(kind, n, None) is not getattr(base, n, None)]
        if changed:
            own = ", ".join(changed)
            do = (
                f"It overrides {own} of {base.__name__}. Undo that, or write an "
                "adapter (tokenred.backbones.register_backbone)."
            )
    return shorten(f"no adapter knows {who}. {do} Known: {known}.", _LONGEST, placeholder=" …")


def _library(kind: type) -> bool:
    return kind.__module__.split(".")[0] in _LIBRARIES


def _load() -> None:
    # timm is imported when a model is wrapped, not when tokenred is.
    from tokenred.backbones.beit import BeitBackbone
    from tokenred.backbones.eva import EvaBackbone
    from tokenred.backbones.huggingface import HuggingFaceViT
    from tokenred.backbones.lvvit import LVViTBackbone
    from tokenred.backbones.sam import SamBackbone
    from tokenred.backbones.vision_transformer import TimmViT

    for backbone in (
        TimmViT,
        EvaBackbone,
        BeitBackbone,
        LVViTBackbone,
        SamBackbone,
        HuggingFaceViT,
    ):
        if backbone not in _BACKBONES:
            _BACKBONES.append(backbone)
