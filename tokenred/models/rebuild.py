"""Describe a model so that it can be rebuilt, and build one from an untrusted description."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import timm
import torch
from annotated_types import Ge, Le
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tokenred.core.errors import CheckpointError, shown
from tokenred.models.checkpoint_file import check_fit, load_strictly, read_checkpoint
from tokenred.models.likeness import attributes_of
from tokenred.models.lvvit import LVViT
from tokenred.models.metadata import Side, parse_preprocessing, read_entry, read_values

_CLASSES: dict[str, Any] = {"VisionTransformer": VisionTransformer, "LVViT": LVViT}
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_.\-]+)?")
_HIDDEN = 1 << 30


# ---------------------------------------------------------------- arguments

Patch = Annotated[int, Ge(1), Le(1 << 10)]
Rate = Annotated[float, Ge(0), Le(0.99)]
Pooling = Literal["", "token", "avg", "avgmax", "max", "map"]


def _is_there(module: Any) -> bool:
    return module is not None and not isinstance(module, nn.Identity)


def _init_values(model: Any) -> float | None:
    scale = model.blocks[0].ls1
    # Before timm 1.0.16 only the weights tell, and those come from the file.
    return getattr(scale, "init_values", 1e-5) if hasattr(scale, "gamma") else None


# The arguments of timm's VisionTransformer that a file may set, and how to read each off a model.
# None of them names a function, a file, a device or an address.
_ARGUMENTS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "img_size": (Side | tuple[Side, Side], lambda m: list(m.patch_embed.img_size)),
    "patch_size": (Patch | tuple[Patch, Patch], lambda m: list(m.patch_embed.patch_size)),
    # An attribute since timm 1.0.16; before that, read from the first layer.
    "in_chans": (
        Annotated[int, Ge(1), Le(1 << 12)],
        lambda m: getattr(m, "in_chans", None) or m.patch_embed.proj.in_channels,
    ),
    "num_classes": (Annotated[int, Ge(0), Le(1 << 24)], lambda m: m.num_classes),
    "global_pool": (Pooling, lambda m: m.global_pool),
    "embed_dim": (Annotated[int, Ge(1), Le(1 << 16)], lambda m: m.embed_dim),
    "depth": (Annotated[int, Ge(1), Le(1 << 10)], lambda m: len(m.blocks)),
    "num_heads": (Annotated[int, Ge(1), Le(1 << 12)], lambda m: m.blocks[0].attn.num_heads),
    "mlp_ratio": (
        Annotated[float, Ge(1e-3), Le(1 << 8)],
        lambda m: m.blocks[0].mlp.fc1.out_features / m.embed_dim,
    ),
    "qkv_bias": (bool, lambda m: m.blocks[0].attn.qkv.bias is not None),
    "qk_norm": (bool, lambda m: _is_there(m.blocks[0].attn.q_norm)),
    "scale_attn_norm": (bool, lambda m: None),
    "scale_mlp_norm": (bool, lambda m: None),
    "proj_bias": (bool, lambda m: m.blocks[0].attn.proj.bias is not None),
    "init_values": (Annotated[float, Ge(0), Le(100)] | None, _init_values),
    "class_token": (bool, lambda m: m.has_class_token),
    "reg_tokens": (Annotated[int, Ge(0), Le(1 << 12)], lambda m: m.num_reg_tokens),
    "no_embed_class": (bool, lambda m: m.no_embed_class),
    "pos_embed": (
        Literal["", "none", "learn"],
        lambda m: "none" if m.pos_embed is None else "learn",
    ),
    "pre_norm": (bool, lambda m: _is_there(m.norm_pre)),
    "final_norm": (bool, lambda m: _is_there(m.norm) or _is_there(m.fc_norm)),
    "fc_norm": (bool | None, lambda m: _is_there(m.fc_norm)),
    "pool_include_prefix": (bool, lambda m: m.pool_include_prefix),
    "dynamic_img_size": (bool, lambda m: m.dynamic_img_size),
    "dynamic_img_pad": (bool, lambda m: m.patch_embed.dynamic_img_pad),
    "drop_rate": (Rate, lambda m: m.head_drop.p),
    "pos_drop_rate": (Rate, lambda m: m.pos_drop.p),
    "patch_drop_rate": (Rate, lambda m: getattr(m.patch_drop, "prob", 0.0)),
    "proj_drop_rate": (Rate, lambda m: m.blocks[0].attn.proj_drop.p),
    "attn_drop_rate": (Rate, lambda m: m.blocks[0].attn.attn_drop.p),
    "drop_path_rate": (Rate, lambda m: getattr(m.blocks[-1].drop_path1, "drop_prob", 0.0)),
}


def _arguments(model: Any) -> dict[str, Any]:
    """The arguments that can be read off a model."""
    found = {}
    for name, (_, read) in _ARGUMENTS.items():
        try:
            found[name] = read(model)
        except (AttributeError, TypeError, IndexError):  # another kind of model
            continue
    return {name: value for name, value in found.items() if value is not None}


# ---------------------------------------------------------------- from a model


def describe_base(model: nn.Module) -> dict[str, Any] | None:
    """The arguments of `build_base` for the same model, or None if there are none.

    Each candidate is built without memory for weights, and compared: the class and every plain
    attribute of each module, and every weight's name and shape.
    """
    wanted = _anatomy(model)
    config = getattr(model, "pretrained_cfg", None)
    name = config.get("architecture") if isinstance(config, dict) else None
    kinds: list[dict[str, Any]] = []
    if isinstance(name, str) and timm.is_model(name):
        kinds.append({"kind": "timm", "name": name})
    kinds += [{"kind": kind} for kind, known in _CLASSES.items() if type(model) is known]
    found = _arguments(model)
    for kind in kinds:
        default = _arguments(_tried(kind))
        # One argument may decide another's default, so all are tried after those that differ.
        for arguments in ({k: v for k, v in found.items() if default.get(k) != v}, found):
            description = kind | {"arguments": arguments}
            if _anatomy(_tried(description)) == wanted:
                return description
    return None


def _tried(description: dict[str, Any]) -> nn.Module | None:
    try:
        with weightless():
            return build_base(description)
    except Exception:  # timm raises anything for an unsuitable argument
        return None


def _anatomy(model: nn.Module | None) -> Any:
    """Everything that a rebuilt model must share."""
    if model is None:
        return None
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    return attributes_of(model), shapes


# ---------------------------------------------------------------- to a model


class _RatesStay(TorchFunctionMode):
    """Let timm 1.0.15 read numbers from a ``linspace``, which has no values on "meta"."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.linspace:
            kwargs = {"device": "cpu"} | (kwargs or {})
        return func(*args, **(kwargs or {}))


@contextmanager
def weightless() -> Iterator[None]:
    """Models built inside have weights on the device "meta": shapes without memory."""
    with torch.device("meta"), _RatesStay():
        yield


def build_base(description: dict[str, Any]) -> nn.Module:
    """Build the model of a description from `describe_base`, with random weights."""
    arguments, kind = description.get("arguments", {}), description["kind"]
    model: nn.Module
    if kind == "timm":
        model = timm.create_model(description["name"], pretrained=False, **arguments)
    else:
        model = _CLASSES[kind](**arguments)
    return model


def build_described(
    description: dict[str, Any], weights: Mapping[str, Tensor], origin: str
) -> tuple[nn.Module, Callable[[], nn.Module]]:
    """Return a model that a file describes, without weights, and a function that builds it.

    Raises:
        CheckpointError: for unknown or unsuitable arguments, or a model that needs much more
            memory than its weights.
    """
    kind = description.get("kind")
    if not isinstance(kind, str) or kind not in ("timm", *_CLASSES):
        raise CheckpointError(
            f"expected a base model of kind 'timm' or {' or '.join(map(repr, _CLASSES))} in "
            f"{origin}, got {shown(description)}. Was the file written by a newer tokenred? Pass "
            "model=… to load it into."
        )
    what = f"the arguments of timm's VisionTransformer in {origin}"
    arguments = description.get("arguments", {})
    if not isinstance(arguments, dict):
        raise CheckpointError(f"expected {what} by name, got {shown(arguments)}.")
    arguments = read_values(arguments, {k: a for k, (a, _) in _ARGUMENTS.items()}, what)
    if arguments.get("depth", 1) > len(weights):
        raise CheckpointError(
            f"{what} ask for {arguments['depth']} blocks, but there are {len(weights)} weights."
        )
    name = description.get("name")
    if kind == "timm" and not (
        isinstance(name, str) and _NAME.fullmatch(name) and timm.is_model(name)
    ):
        raise CheckpointError(
            f"expected the name of one of timm's models in {origin}, got {shown(name)}. Was the "
            "file written with a newer timm? Then pass model=…"
        )

    def build() -> nn.Module:
        try:
            return build_base(description | {"arguments": arguments})
        except Exception as error:  # timm raises anything for an unsuitable argument
            raise CheckpointError(
                f"expected {what}, got {shown(arguments)} ({type(error).__name__}: {error})."
            ) from error

    with weightless():
        empty = build()
    hidden = (m._buffers[k] for m in empty.modules() for k in m._non_persistent_buffers_set)
    if sum(buffer.nbytes for buffer in hidden if buffer is not None) > _HIDDEN:
        raise CheckpointError(f"{origin} asks for a model with tables of more than 1 GiB.")
    return empty, build


def read_described(
    path: Path, num_classes: int | None = None, *, weights: bool = True
) -> tuple[VisionTransformer, dict[str, Any]]:
    """The model of a file, and its ``pretrained_cfg``.

    Args:
        path: a ``.safetensors`` file whose metadata entry ``config`` holds the arguments of timm's
            ``VisionTransformer`` as JSON. Weights named ``decoder.…``, which belong to a separate
            decoder, are ignored.
        num_classes: the number that the model must have, if given.
        weights: whether to load them; otherwise they are random.
    """
    found, metadata = read_checkpoint(path)
    state = {name: value for name, value in found.items() if not name.startswith("decoder.")}
    origin = str(path)
    if metadata.get("format", "").startswith("tokenred/"):
        raise CheckpointError(
            f"{path.name} holds a reduced model, as tokenred.save and fine-tuning write it. Open "
            "it with tokenred.load, or name its base model and pass checkpoint= with this file."
        )
    if "config" not in metadata:
        raise CheckpointError(
            f"expected {path.name} to carry a metadata entry 'config' with the arguments of "
            "timm's VisionTransformer as JSON, got none; name the timm model and pass "
            "checkpoint= with this file."
        )
    config = read_entry(metadata, "config", dict, origin)
    record = parse_preprocessing(metadata, origin)
    description = {"kind": "VisionTransformer", "arguments": config}
    empty, build = build_described(description, state, origin)
    if num_classes not in (None, empty.num_classes):
        raise CheckpointError(
            f"expected {num_classes} classes, but {path.name} has {empty.num_classes}; leave "
            "num_classes out."
        )
    check_fit(empty, state, origin)
    model: Any = build()
    if weights:
        load_strictly(model, state, origin)
    base = {
        "architecture": "vision_transformer",
        "num_classes": model.num_classes,
        "input_size": (config.get("in_chans", 3), *(model.patch_embed.img_size or (224, 224))),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "fixed_input_size": True,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    return model, base | record
