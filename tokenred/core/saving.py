"""Saving a reduced model with all it needs to run again, and loading it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tokenred._version import __version__
from tokenred.core.config import to_config
from tokenred.core.errors import CheckpointError, PartError, UntrainedPartWarning
from tokenred.core.model import ReducedViT, wrap
from tokenred.core.plan import from_config
from tokenred.models.checkpoint_file import read_checkpoint, save_checkpoint
from tokenred.models.fit import load_strictly
from tokenred.models.rebuild import build_base, describe_base

__all__ = ["load", "save"]

_FORMAT = "tokenred/1"


def save(reduced: ReducedViT, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a reduced model to a safetensors file: base, strategy, weights, learned parts.

    The file is written beside its place and moved there, so that it is whole or not there at all.

    Raises:
        PartError: for anything but a `ReducedViT`.
        ConfigError: where a part has no registered name to be found by again.
        OutputExistsError: where the file exists and ``overwrite`` is false.
    """
    if not isinstance(reduced, ReducedViT):
        raise PartError(
            f"save takes what tokenred.wrap returned, got {type(reduced).__name__}. "
            "A plain model is saved by timm or safetensors."
        )
    weights = reduced.state_dict()
    config = getattr(reduced.base, "pretrained_cfg", None) or {}
    floating = (w.dtype for w in weights.values() if w.is_floating_point())
    dtypes = {str(dtype).removeprefix("torch.") for dtype in floating}
    metadata = {
        "format": _FORMAT,
        "tokenred": __version__,
        "base": json.dumps(describe_base(reduced.base)),
        "strategy": json.dumps(to_config(reduced.strategy)),
        "preprocessing": json.dumps(_plain(config)),
        "dtype": ",".join(sorted(dtypes)),
    }
    return save_checkpoint(path, weights, metadata, overwrite=overwrite)


def load(path: str | Path, *, model: nn.Module | None = None) -> ReducedViT:
    """Read what `save` wrote: the model in eval mode, on the CPU, in the type it was saved in.

    Args:
        path: the file.
        model: a base to load into, for one that cannot be built by itself; it takes the weights.

    Raises:
        CheckpointError: for a file that is not `save`'s, weights that do not fit, or a base that
            has to be given.
        UnknownNameError: for a part that is not registered here (import its module first).
    """
    weights, metadata = read_checkpoint(path)
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(
            f"expected a file written by tokenred.save (format {_FORMAT}), got "
            f"{metadata.get('format', 'no format entry')!r} in {path}. Weights alone are loaded "
            "with tokenred.models.load_model."
        )
    strategy = from_config(json.loads(metadata["strategy"]))
    base = model
    if base is None:
        description = json.loads(metadata["base"])
        if description is None:
            raise CheckpointError(
                f"{path} holds a model that no description fitted when it was saved. Build it as "
                "you did then, and pass it: tokenred.load(path, model=…)."
            )
        base = build_base(description)
        _set_preprocessing(base, json.loads(metadata.get("preprocessing", "{}")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrainedPartWarning)  # their weights are in the file
        reduced = wrap(base, strategy)
    _cast(reduced, weights)
    load_strictly(reduced, weights, str(path))
    return reduced.eval()


def _cast(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give the model the type of the weights, so that fp16 comes back as fp16."""
    kinds = {value.dtype for value in weights.values() if value.is_floating_point()}
    if len(kinds) == 1:
        model.to(dtype=kinds.pop())


def _plain(config: Any) -> dict[str, Any]:
    """The entries of a timm configuration that JSON holds and preprocessing needs."""
    wanted = ("architecture", "input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
    return {k: config[k] for k in wanted if config.get(k) is not None}


def _set_preprocessing(base: nn.Module, saved: dict[str, Any]) -> None:
    known = getattr(base, "pretrained_cfg", None) or {}
    as_tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
    merged: Any = {**known, **as_tuples}
    base.pretrained_cfg = merged
    base.default_cfg = merged
