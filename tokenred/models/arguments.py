"""Arguments of models that a file may name: a short list, and nothing that opens or runs things."""

from __future__ import annotations

import re
from collections.abc import Sized
from typing import Any

import timm

from tokenred.core.errors import CheckpointError
from tokenred.models.metadata import Check, check_values, cut, number, one_of, several, whole

__all__ = ["SIDE", "check_arguments", "check_name"]

_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_.\-]+)?")
SIDE = whole(1, 1 << 14)
"""A side of an image, in pixels."""


def _or(word: str, also: Any, check: Check) -> Check:
    return f"{check[0]}, or {word}", lambda v: v is also or check[1](v)


def _side_or_two(check: Check) -> Check:
    pair = several(2, 2, check)
    return f"{check[0]}, or two", lambda v: check[1](v) or pair[1](v)


_TRUTH: Check = "true or false", lambda v: type(v) is bool
_RATE = number(0, 0.99)

# Of timm's VisionTransformer. What names a function, a file, a device or a place to fetch from is
# not among them.
_ARGUMENTS: dict[str, Check] = {
    "img_size": _side_or_two(SIDE),
    "patch_size": _side_or_two(whole(1, 1 << 10)),
    "in_chans": whole(1, 1 << 12),
    "num_classes": whole(0, 1 << 24),
    "global_pool": one_of("", "token", "avg", "avgmax", "max", "map"),
    "embed_dim": whole(1, 1 << 16),
    "depth": whole(1, 1 << 10),
    "num_heads": whole(1, 1 << 12),
    "mlp_ratio": number(1e-3, 1 << 8),
    "init_values": _or("null", None, number(0, 100)),
    "pos_embed": one_of("", "none", "learn"),
    "reg_tokens": whole(0, 1 << 12),
    **dict.fromkeys(("qkv_bias", "qk_norm", "scale_attn_norm", "scale_mlp_norm"), _TRUTH),
    **dict.fromkeys(("proj_bias", "class_token", "no_embed_class", "pre_norm"), _TRUTH),
    **dict.fromkeys(("final_norm", "pool_include_prefix"), _TRUTH),
    **dict.fromkeys(("dynamic_img_size", "dynamic_img_pad"), _TRUTH),
    "fc_norm": _or("null", None, _TRUTH),
    **dict.fromkeys(("drop_rate", "pos_drop_rate", "patch_drop_rate"), _RATE),
    **dict.fromkeys(("proj_drop_rate", "attn_drop_rate", "drop_path_rate"), _RATE),
}


def check_arguments(arguments: Any, weights: Sized, origin: str) -> dict[str, Any]:
    """Refuse arguments of a model that are not plain, known and of a possible size.

    Args:
        arguments: what a file says.
        weights: the file's; a model has no more blocks than weights.
        origin: the file, for messages.

    Returns:
        The arguments.

    Raises:
        CheckpointError: names the argument, and what was expected of it.
    """
    what = f"the arguments of timm's VisionTransformer in {origin}"
    if not isinstance(arguments, dict):
        raise CheckpointError(f"expected {what} by name, got {cut(arguments)}.")
    check_values(arguments, _ARGUMENTS, what)
    if arguments.get("depth", 1) > len(weights):
        raise CheckpointError(
            f"{what} ask for {arguments['depth']} blocks, but there are {len(weights)} weights."
        )
    return arguments


def check_name(name: Any, origin: str) -> str:
    """Refuse what is not the name of one of timm's architectures.

    Raises:
        CheckpointError: for places to fetch a model from, and for unknown names.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not timm.is_model(name):
        raise CheckpointError(
            f"expected the name of one of timm's models in {origin}, got {cut(name)}. Was the "
            "file written with a newer timm? Then pass model=…"
        )
    return name
