"""What a file says of its model: strict JSON, plain arguments, preprocessing; or an error.

Nothing in it is believed. What names a function, a file, a device or a place to fetch from is not
among the arguments that a file may set.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence, Sized
from typing import Annotated, Any, Literal, NoReturn

import timm
from annotated_types import Ge, Le, MaxLen, MinLen
from torch import nn

from tokenred.core.errors import CheckpointError, ConfigError
from tokenred.core.values import read
from tokenred.core.wording import shown
from tokenred.data.transforms import check_statistics

__all__ = [
    "PREPROCESSING",
    "check_name",
    "parse_preprocessing",
    "read_arguments",
    "read_entry",
    "read_values",
    "set_preprocessing",
    "told_preprocessing",
]

_KINDS = {dict: "an object", list: "a list", type(None): "null"}
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_.\-]+)?")

Side = Annotated[int, Ge(1), Le(1 << 14)]
Patch = Annotated[int, Ge(1), Le(1 << 10)]
Rate = Annotated[float, Ge(0), Le(0.99)]
_SWITCHES = (
    *("qkv_bias", "qk_norm", "scale_attn_norm", "scale_mlp_norm", "proj_bias", "class_token"),
    *("no_embed_class", "pre_norm", "final_norm", "pool_include_prefix"),
    *("dynamic_img_size", "dynamic_img_pad"),
)
_RATES = (
    *("drop_rate", "pos_drop_rate", "patch_drop_rate"),
    *("proj_drop_rate", "attn_drop_rate", "drop_path_rate"),
)
# Of timm's VisionTransformer.
_ARGUMENTS: dict[str, Any] = {
    "img_size": Side | tuple[Side, Side],
    "patch_size": Patch | tuple[Patch, Patch],
    "in_chans": Annotated[int, Ge(1), Le(1 << 12)],
    "num_classes": Annotated[int, Ge(0), Le(1 << 24)],
    "global_pool": Literal["", "token", "avg", "avgmax", "max", "map"],
    "embed_dim": Annotated[int, Ge(1), Le(1 << 16)],
    "depth": Annotated[int, Ge(1), Le(1 << 10)],
    "num_heads": Annotated[int, Ge(1), Le(1 << 12)],
    "mlp_ratio": Annotated[float, Ge(1e-3), Le(1 << 8)],
    "init_values": Annotated[float, Ge(0), Le(100)] | None,
    "pos_embed": Literal["", "none", "learn"],
    "reg_tokens": Annotated[int, Ge(0), Le(1 << 12)],
    "fc_norm": bool | None,
    **dict.fromkeys(_SWITCHES, bool),
    **dict.fromkeys(_RATES, Rate),
}
Mean = Annotated[tuple[Annotated[float, Ge(-1e6), Le(1e6)], ...], MinLen(1), MaxLen(100)]
Spread = Annotated[tuple[Annotated[float, Ge(1e-6), Le(1e6)], ...], MinLen(1), MaxLen(100)]
_PREPROCESSING: dict[str, Any] = {
    "architecture": Annotated[str, MinLen(1), MaxLen(99)],
    "input_size": tuple[Side, Side, Side],
    "mean": Mean,
    "std": Spread,
    "interpolation": Literal[
        "bicubic", "bilinear", "nearest", "lanczos", "box", "hamming", "random"
    ],
    "crop_pct": Annotated[float, Ge(0.01), Le(1)],
    "crop_mode": Literal["center", "squash", "border"],
}
PREPROCESSING = tuple(name for name in _PREPROCESSING if name != "architecture")
"""The entries of ``pretrained_cfg`` by which images are prepared."""


def read_entry(
    metadata: Mapping[str, str], name: str, kinds: type | tuple[type, ...], origin: str
) -> Any:
    """Parse an entry of a checkpoint's metadata; ``origin`` is the file, for messages.

    Raises:
        CheckpointError: if the entry is missing, no JSON (NaN and names that come twice are none),
            or of another kind than ``dict``, ``list`` or ``type(None)``, whichever are allowed.
    """
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    wanted = f"JSON, {' or '.join(_KINDS[kind] for kind in kinds)}, in the metadata entry {name!r}"
    text = metadata.get(name)
    if text is None:
        raise CheckpointError(
            f"expected {wanted} of {origin}, which has no such entry; write the file again."
        )
    try:
        value = json.loads(
            text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_once
        )
    # Nesting of thousands of levels ends in a RecursionError.
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"expected {wanted} of {origin}, got {shown(text)} ({error}); write the file again "
            "with json.dumps."
        ) from error
    if not isinstance(value, kinds):
        raise CheckpointError(
            f"expected {wanted} of {origin}, got {shown(text)}; write the file again."
        )
    return value


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is out of range")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


def read_values(
    values: Mapping[str, Any], annotations: Mapping[str, Any], what: str
) -> dict[str, Any]:
    """Values by name as their annotations say; ``what`` they are, for messages.

    Raises:
        CheckpointError: for an unknown name or another value: what came and what was expected.
    """
    if unknown := [name for name in values if name not in annotations]:
        raise CheckpointError(
            f"expected {what} to hold only {', '.join(annotations)}, got {shown(unknown[0])}; take "
            "it out."
        )
    try:
        return {k: read(annotations[k], v, f"{k} in {what}") for k, v in values.items()}
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


# ---------------------------------------------------------------- which model


def read_arguments(arguments: Any, weights: Sized, origin: str) -> dict[str, Any]:
    """Arguments of a model that a file may name: plain, known and of a possible size.

    A model has no more blocks than the file has weights.

    Raises:
        CheckpointError: names the argument, and what was expected of it.
    """
    what = f"the arguments of timm's VisionTransformer in {origin}"
    if not isinstance(arguments, dict):
        raise CheckpointError(f"expected {what} by name, got {shown(arguments)}.")
    found = read_values(arguments, _ARGUMENTS, what)
    if found.get("depth", 1) > len(weights):
        raise CheckpointError(
            f"{what} ask for {found['depth']} blocks, but there are {len(weights)} weights."
        )
    return found


def check_name(name: Any, origin: str) -> str:
    """Refuse what is not the name of one of timm's architectures.

    Raises:
        CheckpointError: for places to fetch a model from, and for unknown names.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not timm.is_model(name):
        raise CheckpointError(
            f"expected the name of one of timm's models in {origin}, got {shown(name)}. Was the "
            "file written with a newer timm? Then pass model=…"
        )
    return name


# ---------------------------------------------------------------- preprocessing


def told_preprocessing(model: nn.Module) -> dict[str, Any]:
    """What a model wants done to its images, as a file holds it.

    Raises:
        CheckpointError: for a value that `parse_preprocessing` would refuse.
    """
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    told = {key: config[key] for key in _PREPROCESSING if config.get(key) is not None}
    _read_preprocessing(told, "the preprocessing of the model")
    return told


def parse_preprocessing(metadata: Mapping[str, str], origin: str) -> dict[str, Any]:
    """Entries for ``pretrained_cfg`` from a file; empty where it says nothing.

    Raises:
        CheckpointError: if an entry is unknown or unusable.
    """
    if "preprocessing" not in metadata:
        return {}
    record = read_entry(metadata, "preprocessing", dict, origin)
    return _read_preprocessing(record, f"the preprocessing in {origin}")


def _read_preprocessing(record: Mapping[str, Any], what: str) -> dict[str, Any]:
    found = read_values(record, _PREPROCESSING, what)
    counts = {3, found.get("input_size", (3,))[0]}
    for name in ("mean", "std"):
        if name in found and len(found[name]) not in counts:
            raise CheckpointError(
                f"expected {name} in {what} as one number a channel, got {shown(found[name])}."
            )
    return found


def set_preprocessing(
    model: nn.Module,
    record: Mapping[str, Any],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> None:
    """Write preprocessing into the model's ``pretrained_cfg``, where timm's tools find it.

    Raises:
        ConfigError: if ``mean`` or ``std`` is not three usable numbers.
    """
    chosen = dict(record)
    for name, value in (("mean", mean), ("std", std)):
        if value is not None:
            chosen[name] = check_statistics(name, value)
    if chosen:
        known: Any = getattr(model, "pretrained_cfg", None) or {}
        merged: Any = {**dict(known), **chosen}
        model.pretrained_cfg = merged
