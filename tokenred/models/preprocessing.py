"""What a model wants done to its images, kept where timm looks for it: ``pretrained_cfg``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tokenred.core.errors import CheckpointError
from tokenred.data.transforms import check_statistics
from tokenred.models.arguments import SIDE
from tokenred.models.metadata import Check, check_values, cut, number, one_of, read_entry, several

__all__ = ["parse_preprocessing", "set_preprocessing", "told_preprocessing"]

_INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming", "random")
_CHECKS: dict[str, Check] = {
    "architecture": ("a short word", lambda v: isinstance(v, str) and 0 < len(v) < 100),
    "input_size": several(3, 3, SIDE),
    "mean": several(1, 100, number(-1e6, 1e6)),
    "std": several(1, 100, number(1e-6, 1e6)),
    "interpolation": one_of(*_INTERPOLATIONS),
    "crop_pct": number(0.01, 1),
    "crop_mode": one_of("center", "squash", "border"),
}


def told_preprocessing(model: nn.Module) -> dict[str, Any]:
    """What a model wants done to its images, as a file holds it.

    Raises:
        CheckpointError: for a value that `parse_preprocessing` would refuse.
    """
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    told = {key: config[key] for key in _CHECKS if config.get(key) is not None}
    _check(told, "the preprocessing of the model")
    return told


def parse_preprocessing(metadata: Mapping[str, str], origin: str) -> dict[str, Any]:
    """Read and check the ``preprocessing`` entry of a checkpoint's metadata.

    Args:
        metadata: of the file.
        origin: the file, for messages.

    Returns:
        Entries for ``pretrained_cfg``; empty where the file says nothing.

    Raises:
        CheckpointError: if an entry is unknown or unusable.
    """
    if "preprocessing" not in metadata:
        return {}
    record = read_entry(metadata, "preprocessing", dict, origin)
    _check(record, f"the preprocessing in {origin}")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}


def _check(record: Mapping[str, Any], what: str) -> None:
    check_values(record, _CHECKS, what)
    counts = {3, record.get("input_size", (3,))[0]}
    for name in ("mean", "std"):
        if name in record and len(record[name]) not in counts:
            raise CheckpointError(
                f"expected {name} in {what} as one number a channel, got {cut(record[name])}."
            )


def set_preprocessing(
    model: nn.Module,
    record: Mapping[str, Any],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> None:
    """Write preprocessing into the model's ``pretrained_cfg``, where timm's tools find it.

    Args:
        model: changed in place.
        record: entries from the checkpoint.
        mean: overrides the record's.
        std: overrides the record's.

    Raises:
        ConfigError: if ``mean`` or ``std`` is not three usable numbers.
    """
    chosen = dict(record)
    if mean is not None:
        chosen["mean"] = check_statistics("mean", mean)
    if std is not None:
        chosen["std"] = check_statistics("std", std)
    if chosen:
        known: Any = getattr(model, "pretrained_cfg", None) or {}
        merged: Any = {**dict(known), **chosen}
        model.pretrained_cfg = merged
