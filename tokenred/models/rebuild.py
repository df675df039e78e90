"""How to build a model again without its weights: described when saved, verified there and then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.overrides import TorchFunctionMode

from tokenred.core.errors import CheckpointError
from tokenred.models.lvvit import LVViT

__all__ = ["build_base", "describe_base", "weightless"]

_CLASSES: dict[str, Any] = {"VisionTransformer": VisionTransformer, "LVViT": LVViT}
# What LVViT takes; the rest of a VisionTransformer's arguments is settled in it.
_LVVIT = (
    *("img_size", "in_chans", "num_classes", "global_pool", "dynamic_img_size"),
    *("embed_dim", "depth", "num_heads", "mlp_ratio"),
)


def describe_base(model: nn.Module) -> dict[str, Any] | None:
    """What `build_base` needs to make the same model, or None where no description fits.

    Every candidate is built (without memory for its weights) and compared module by module and
    weight by weight, so that a description that is given is right.
    """
    wanted = _anatomy(model)
    for description in _candidates(model):
        try:
            with weightless():
                rebuilt = build_base(description)
        except Exception:
            # timm raises whatever an argument that does not suit it runs into.
            continue
        if _anatomy(rebuilt) == wanted:
            return description
    return None


@contextmanager
def weightless() -> Iterator[None]:
    """Models built inside have their weights on "meta": shapes, and no memory."""
    with torch.device("meta"), _RatesStay():
        yield


class _RatesStay(TorchFunctionMode):
    """timm 1.0.15 reads numbers off a ``linspace``, and those on "meta" have no values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.linspace:
            kwargs = {"device": "cpu"} | (kwargs or {})
        return func(*args, **(kwargs or {}))


def build_base(description: dict[str, Any]) -> nn.Module:
    """A model from its description, with random weights.

    Raises:
        CheckpointError: for a description of no known form.
    """
    kwargs = description.get("arguments", {})
    if description.get("kind") == "timm":
        model: nn.Module = timm.create_model(description["name"], pretrained=False, **kwargs)
        return model
    if description.get("kind") in _CLASSES:
        vit: nn.Module = _CLASSES[description["kind"]](**kwargs)
        return vit
    raise CheckpointError(
        f"expected a base model of kind 'timm' or {' or '.join(map(repr, _CLASSES))}, got "
        f"{description!r}. "
        "Was the file written by a newer tokenred? Pass model=… to load it into."
    )


def _anatomy(model: nn.Module) -> tuple[str, list[Any], dict[str, tuple[int, ...]]]:
    """All that a rebuilt model must share: modules with their settings, names and shapes."""
    unseen = [getattr(model, name, None) for name in ("global_pool", "dynamic_img_size")]
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    return repr(model), unseen, shapes


def _candidates(model: nn.Module) -> Iterator[dict[str, Any]]:
    config = getattr(model, "pretrained_cfg", None)
    name = config.get("architecture") if isinstance(config, dict) else None
    arguments = _arguments(model)
    if name is not None and timm.is_model(name):
        same = {k: v for k, v in arguments.items() if k in ("num_classes", "in_chans")}
        free = ("img_size", "global_pool", "dynamic_img_size")
        sized = same | {k: v for k, v in arguments.items() if k in free}
        shape = {"depth", "embed_dim", "num_heads", "mlp_ratio", "patch_size", "init_values"}
        shaped = sized | {k: v for k, v in arguments.items() if k in shape}
        for kwargs in ({}, same, sized, sized | {"depth": arguments.get("depth")}, shaped):
            yield {"kind": "timm", "name": name, "arguments": kwargs}
    for kind, known in _CLASSES.items():
        if type(model) is known:
            yield {"kind": kind, "arguments": arguments}


def _arguments(model: Any) -> dict[str, Any]:
    """The arguments of a ``VisionTransformer``, read off the model; what cannot be is left out."""
    if not isinstance(model, VisionTransformer):
        return {}
    block, embed = model.blocks[0], model.patch_embed
    attn, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
    proj = getattr(embed, "proj", None)
    found: dict[str, Any] = {
        "img_size": list(embed.img_size) if embed.img_size else None,
        "patch_size": list(embed.patch_size),
        # timm from 1.0.16 on says it; before, the projection does where it is the first layer.
        "in_chans": getattr(model, "in_chans", None) or getattr(proj, "in_channels", None),
        "num_classes": model.num_classes,
        "global_pool": model.global_pool,
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": getattr(attn, "num_heads", None),
        "class_token": model.has_class_token,
        "reg_tokens": model.num_reg_tokens,
        "no_embed_class": model.no_embed_class,
        "dynamic_img_size": model.dynamic_img_size,
        "pre_norm": not isinstance(model.norm_pre, nn.Identity),
        "fc_norm": not isinstance(model.fc_norm, nn.Identity),
    }
    if attn is not None and hasattr(attn, "qkv"):
        found["qkv_bias"] = attn.qkv.bias is not None
        found["qk_norm"] = not isinstance(attn.q_norm, nn.Identity)
    if mlp is not None and hasattr(mlp, "fc1"):
        found["mlp_ratio"] = mlp.fc1.out_features / model.embed_dim
    if hasattr(getattr(block, "ls1", None), "gamma"):
        found["init_values"] = 1e-5  # only whether there is a LayerScale: its values are weights
    wanted = _LVVIT if isinstance(model, LVViT) else tuple(found)
    return {name: found[name] for name in wanted if found[name] is not None}
