"""The metadata of weight files: strict JSON and preprocessing. Nothing in it is trusted."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic_core import from_json
from torch import nn

from tokenred.core.errors import CheckpointError, ConfigError, shown
from tokenred.core.values import read

_KINDS = {dict: "an object", list: "a list", type(None): "null"}
Side = Annotated[int, Ge(1), Le(1 << 14)]
_PREPROCESSING: dict[str, Any] = {
    "architecture": Annotated[str, MinLen(1), MaxLen(99)],
    "input_size": tuple[Side, Side, Side],
    "mean": Annotated[tuple[Annotated[float, Ge(-1e6), Le(1e6)], ...], MinLen(1), MaxLen(100)],
    "std": Annotated[tuple[Annotated[float, Ge(1e-6), Le(1e6)], ...], MinLen(1), MaxLen(100)],
    "interpolation": Literal[
        "bicubic", "bilinear", "nearest", "lanczos", "box", "hamming", "random"
    ],
    "crop_pct": Annotated[float, Ge(0.01), Le(1)],
    "crop_mode": Literal["center", "squash", "border"],
}
PREPROCESSING = tuple(name for name in _PREPROCESSING if name != "architecture")
"""The entries of ``pretrained_cfg`` that describe preprocessing."""


def read_entry(
    metadata: Mapping[str, str], name: str, kinds: type | tuple[type, ...], origin: str
) -> Any:
    """Parse an entry of a file's metadata, which may be a ``dict``, a ``list`` or ``None``."""
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    wanted = f"JSON, {' or '.join(_KINDS[kind] for kind in kinds)}, in the metadata entry {name!r}"
    text = metadata.get(name)
    problem = ""
    try:
        if text is None:
            raise ValueError("the entry is missing")
        value = from_json(text, allow_inf_nan=False)
        if isinstance(value, kinds):
            return value
    except (ValueError, TypeError) as error:  # a TypeError for text that is not Unicode
        problem = f" ({error})"
    raise CheckpointError(
        f"expected {wanted} of {origin}, got {shown(text)}{problem}; write the file again."
    )


def read_values(
    values: Mapping[str, Any], annotations: Mapping[str, Any], what: str
) -> dict[str, Any]:
    """Check a file's values by name against annotations; ``what`` names them in messages."""
    if unknown := [name for name in values if name not in annotations]:
        raise CheckpointError(
            f"expected {what} to hold only {', '.join(annotations)}, got {shown(unknown[0])}; take "
            "it out."
        )
    try:
        return {k: read(annotations[k], v, f"{k} in {what}") for k, v in values.items()}
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def told_preprocessing(model: nn.Module) -> dict[str, Any]:
    """The preprocessing of a model's images, as `parse_preprocessing` reads it."""
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    told = {key: config[key] for key in _PREPROCESSING if config.get(key) is not None}
    _read_preprocessing(told, "the preprocessing of the model")
    return told


def parse_preprocessing(metadata: Mapping[str, str], origin: str) -> dict[str, Any]:
    """Entries for ``pretrained_cfg`` from a file; empty if it has none."""
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
                f"expected {name} in {what} as one number per channel, got {shown(found[name])}."
            )
    return found


def set_preprocessing(model: nn.Module, record: Mapping[str, Any]) -> None:
    """Write preprocessing into the model's ``pretrained_cfg``, where timm's tools find it."""
    if record:
        merged: Any = {**(getattr(model, "pretrained_cfg", None) or {}), **record}
        model.pretrained_cfg = merged
