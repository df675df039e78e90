"""Models that files describe: described when saved and verified there and then, built when read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tokenred.core.errors import CheckpointError
from tokenred.core.wording import shown
from tokenred.models.checkpoint_file import read_checkpoint
from tokenred.models.fit import check_fit, load_strictly
from tokenred.models.likeness import attributes_of
from tokenred.models.lvvit import LVViT
from tokenred.models.metadata import (
    check_name,
    parse_preprocessing,
    read_arguments,
    read_entry,
)

__all__ = ["build_base", "build_described", "describe_base", "read_described", "weightless"]

_CLASSES: dict[str, Any] = {"VisionTransformer": VisionTransformer, "LVViT": LVViT}
_HIDDEN = 1 << 30


def describe_base(model: nn.Module) -> dict[str, Any] | None:
    """What `build_base` needs to make the same model, or None where no description fits.

    Every candidate is built (without memory for its weights) and compared: the class and every
    plain attribute of each module, and every weight's name and shape. So a description that is
    given is right.
    """
    wanted = _anatomy(model)
    for description in _candidates(model):
        rebuilt = _tried(description)
        if rebuilt is not None and _anatomy(rebuilt) == wanted:
            return description
    return None


def _tried(description: dict[str, Any]) -> nn.Module | None:
    try:
        with weightless():
            return build_base(description)
    # timm raises whatever an argument that does not suit it runs into.
    except Exception:
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


def build_described(
    description: dict[str, Any], weights: Mapping[str, Tensor], origin: str
) -> tuple[nn.Module, Callable[[], nn.Module]]:
    """A model that a file describes, without weights, and how to build it with random ones.

    Raises:
        CheckpointError: for a description of no known form, arguments that a file may not set or
            that do not go together, and a model that would need much more memory than its weights.
    """
    kind = description.get("kind")
    if not isinstance(kind, str) or kind not in ("timm", *_CLASSES):
        raise CheckpointError(
            f"expected a base model of kind 'timm' or {' or '.join(map(repr, _CLASSES))} in "
            f"{origin}, got {shown(description)}. Was the file written by a newer tokenred? Pass "
            "model=… to load it into."
        )
    arguments = read_arguments(description.get("arguments", {}), weights, origin)
    if kind == "timm":
        check_name(description.get("name"), origin)

    def build() -> nn.Module:
        try:
            return build_base(description | {"arguments": arguments})
        except Exception as error:  # whatever timm runs into
            raise CheckpointError(
                f"expected the arguments of timm's VisionTransformer in {origin}, got "
                f"{shown(arguments)} ({type(error).__name__}: {error})."
            ) from error

    with weightless():
        empty = build()
    hidden = (m._buffers[k] for m in empty.modules() for k in m._non_persistent_buffers_set)
    if sum(buffer.nbytes for buffer in hidden if buffer is not None) > _HIDDEN:
        raise CheckpointError(f"{origin} asks for a model with tables of more than 1 GiB.")
    return empty, build


def build_base(description: dict[str, Any]) -> nn.Module:
    """A model from what `describe_base` said of it, with random weights."""
    arguments = description.get("arguments", {})
    if description["kind"] == "timm":
        model: nn.Module = timm.create_model(description["name"], pretrained=False, **arguments)
        return model
    vit: nn.Module = _CLASSES[description["kind"]](**arguments)
    return vit


def read_described(
    path: Path, num_classes: int | None = None, *, weights: bool = True
) -> tuple[VisionTransformer, dict[str, Any]]:
    """The model of a file, and its ``pretrained_cfg``.

    Args:
        path: a ``.safetensors`` file whose metadata entry ``config`` holds the arguments of timm's
            ``VisionTransformer`` as JSON.
        num_classes: that the model must have, if given.
        weights: load them; otherwise they are random.

    Raises:
        CheckpointError: if the file does not describe itself, or its weights do not fit.
    """
    state, metadata = read_checkpoint(path)
    if "config" not in metadata:
        raise CheckpointError(
            f"expected {path.name} to carry a metadata entry 'config' with the arguments of "
            "timm's VisionTransformer as JSON, got none; name the timm model and pass "
            "checkpoint= with this file."
        )
    config = read_entry(metadata, "config", dict, str(path))
    record = parse_preprocessing(metadata, str(path))
    description = {"kind": "VisionTransformer", "arguments": config}
    empty, build = build_described(description, state, str(path))
    if num_classes not in (None, empty.num_classes):
        raise CheckpointError(
            f"expected {num_classes} classes, but {path.name} has {empty.num_classes}; leave "
            "num_classes out."
        )
    check_fit(empty, state, str(path))
    model: Any = build()
    if weights:
        load_strictly(model, state, str(path))
    height, width = model.patch_embed.img_size or (224, 224)
    base = {
        "architecture": "vision_transformer",
        "num_classes": model.num_classes,
        "input_size": (config.get("in_chans", 3), height, width),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "fixed_input_size": True,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    return model, {**base, **record}


def _anatomy(model: nn.Module) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """All that a rebuilt model must share."""
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    return attributes_of(model), shapes


def _candidates(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Descriptions that may fit: without arguments, with those that differ, with all."""
    config = getattr(model, "pretrained_cfg", None)
    name = config.get("architecture") if isinstance(config, dict) else None
    found = _arguments(model)
    if isinstance(name, str) and timm.is_model(name):
        yield from _with_arguments({"kind": "timm", "name": name}, found)
    for kind, known in _CLASSES.items():
        if type(model) is known:
            taken = inspect.signature(known).parameters
            yield from _with_arguments({"kind": kind}, {k: found[k] for k in found if k in taken})


def _with_arguments(plain: dict[str, Any], found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    default = _tried(plain)
    if default is not None:
        usual = _arguments(default)
        differs = {k: v for k, v in found.items() if k not in usual or usual[k] != v}
        yield plain | {"arguments": differs}
    yield plain | {"arguments": found}


def _arguments(model: Any) -> dict[str, Any]:
    """The arguments of a vision transformer, read off the model; what cannot be is left out."""
    found = {}
    for name, read in _READERS.items():
        try:
            value = read(model)
        except (AttributeError, TypeError, IndexError):  # a model of another form
            continue
        if value is not None:
            found[name] = value
    return found


def _is_there(module: Any) -> bool:
    return module is not None and not isinstance(module, nn.Identity)


def _init_values(model: Any) -> float | None:
    scale = model.blocks[0].ls1
    # Before timm 1.0.16 it is only seen in the weights, which come from the file.
    return getattr(scale, "init_values", 1e-5) if hasattr(scale, "gamma") else None


# "in_chans": timm from 1.0.16 on says it; before, the projection does where it is the first layer.
_READERS: dict[str, Callable[[Any], Any]] = {
    "img_size": lambda m: list(m.patch_embed.img_size),
    "patch_size": lambda m: list(m.patch_embed.patch_size),
    "in_chans": lambda m: getattr(m, "in_chans", None) or m.patch_embed.proj.in_channels,
    "num_classes": lambda m: m.num_classes,
    "global_pool": lambda m: m.global_pool,
    "embed_dim": lambda m: m.embed_dim,
    "depth": lambda m: len(m.blocks),
    "num_heads": lambda m: m.blocks[0].attn.num_heads,
    "mlp_ratio": lambda m: m.blocks[0].mlp.fc1.out_features / m.embed_dim,
    "qkv_bias": lambda m: m.blocks[0].attn.qkv.bias is not None,
    "qk_norm": lambda m: _is_there(m.blocks[0].attn.q_norm),
    "proj_bias": lambda m: m.blocks[0].attn.proj.bias is not None,
    "init_values": _init_values,
    "class_token": lambda m: m.has_class_token,
    "reg_tokens": lambda m: m.num_reg_tokens,
    "no_embed_class": lambda m: m.no_embed_class,
    "pos_embed": lambda m: "none" if m.pos_embed is None else "learn",
    "pre_norm": lambda m: _is_there(m.norm_pre),
    "final_norm": lambda m: _is_there(m.norm) or _is_there(m.fc_norm),
    "fc_norm": lambda m: _is_there(m.fc_norm),
    "pool_include_prefix": lambda m: m.pool_include_prefix,
    "dynamic_img_size": lambda m: m.dynamic_img_size,
    "dynamic_img_pad": lambda m: m.patch_embed.dynamic_img_pad,
    "drop_rate": lambda m: m.head_drop.p,
    "pos_drop_rate": lambda m: m.pos_drop.p,
    "patch_drop_rate": lambda m: getattr(m.patch_drop, "prob", 0.0),
    "proj_drop_rate": lambda m: m.blocks[0].attn.proj_drop.p,
    "attn_drop_rate": lambda m: m.blocks[0].attn.attn_drop.p,
    "drop_path_rate": lambda m: getattr(m.blocks[-1].drop_path1, "drop_prob", 0.0),
}
