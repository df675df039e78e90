"""Checkpoints that say of themselves which model they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from tokenred.core.errors import CheckpointError
from tokenred.models.checkpoint_file import read_checkpoint
from tokenred.models.fit import check_fit, load_strictly
from tokenred.models.metadata import read_entry
from tokenred.models.preprocessing import parse_preprocessing
from tokenred.models.rebuild import build_described

__all__ = ["read_described"]


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
