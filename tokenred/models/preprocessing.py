"""What a model wants done to its images, kept where timm looks for it: ``pretrained_cfg``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tokenred.core.errors import CheckpointError, ConfigError
from tokenred.data.statistics import check_statistics

__all__ = ["parse_json_object", "parse_preprocessing", "set_preprocessing"]

_KEYS = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
_INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming", "random")


def parse_json_object(text: str, what: str, origin: str) -> dict[str, Any]:
    """Parse an entry of a checkpoint's metadata.

    Args:
        text: the entry.
        what: its name, for the message.
        origin: the file, for the message.

    Returns:
        The object.

    Raises:
        CheckpointError: if the text is not a JSON object.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CheckpointError(
            f"expected JSON in the metadata entry {what!r} of {origin}, got {text[:80]!r} "
            f"({error}); write the file again with json.dumps."
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"expected a JSON object in the metadata entry {what!r} of {origin}, got "
            f"{type(value).__name__}; write names and values."
        )
    return value


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
    record = parse_json_object(metadata["preprocessing"], "preprocessing", origin)
    unknown = [key for key in record if key not in _KEYS]
    if unknown:
        raise CheckpointError(
            f"expected preprocessing in {origin} to hold only {', '.join(_KEYS)}, got also "
            f"{', '.join(unknown)}; take that out."
        )
    for name in ("mean", "std"):
        if name in record:
            try:
                record[name] = check_statistics(name, record[name])
            except ConfigError as error:
                raise CheckpointError(f"preprocessing in {origin}: {error}") from error
    return {**record, **_checked_geometry(record, origin)}


def _checked_geometry(record: Mapping[str, Any], origin: str) -> dict[str, Any]:
    size = record.get("input_size", [3, 1, 1])
    if (
        not isinstance(size, list)
        or len(size) != 3
        or not all(type(side) is int and side > 0 for side in size)
    ):
        raise CheckpointError(
            f"expected input_size in {origin} as [channels, height, width], got {size!r}; mend "
            "the metadata."
        )
    crop = record.get("crop_pct", 1.0)
    if not isinstance(crop, (int, float)) or not 0 < crop <= 1:
        raise CheckpointError(
            f"expected crop_pct in {origin} above 0 and at most 1, got {crop!r}; mend the metadata."
        )
    if record.get("interpolation", "bilinear") not in _INTERPOLATIONS:
        raise CheckpointError(
            f"expected interpolation in {origin} to be one of {', '.join(_INTERPOLATIONS)}, got "
            f"{record['interpolation']!r}; mend the metadata."
        )
    return {"input_size": tuple(size)} if "input_size" in record else {}


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
