"""The models to measure, by name, and the shape of their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokenred.core.errors import ConfigError, InputError, PartError
from tokenred.models import load_model
from tokenred.models.embedded import EMBEDDED_MODELS
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.wrap import wrap
from tokenred.strategies.specs import Spec, StrategyLike, parse_spec

__all__ = [
    "Candidate",
    "build_model",
    "image_shape_of",
    "named_candidates",
    "resize",
]

Candidate = nn.Module | StrategyLike


def build_model(
    name: str | Path,
    image_size: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> nn.Module:
    """A model in eval mode on the CPU, without a download.

    timm's models get random weights, always the same: neither speed nor memory depends on their
    values. Embedded models and checkpoints use their own weights.

    Args:
        name: as for `tokenred.models.load_model`.
        image_size: (height, width) of the images; the position embedding is resized to it.
        dtype: of the weights.
        seed: of random weights.

    Raises:
        UnknownNameError: if timm has no such model.
        CheckpointError: if the file is not a checkpoint.
        InputError: if the model does not support the size.
    """
    own = str(name).casefold() in EMBEDDED_MODELS or Path(name).suffix == ".safetensors"
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = load_model(name, pretrained=None if own else False)
    if image_size is not None:
        resize(model, image_size)
    return model.to(dtype).eval()


def resize(model: nn.Module, size: tuple[int, int]) -> None:
    """Make a model take images of another (height, width), in place.

    Raises:
        InputError: if the model does not support the size.
    """
    embed = getattr(model, "patch_embed", None)
    if getattr(embed, "img_size", None) == size:
        return
    patch = getattr(embed, "patch_size", (1, 1))
    if size[0] % patch[0] or size[1] % patch[1]:
        raise InputError(
            f"expected an image size in multiples of the patch {patch[0]}x{patch[1]}, got "
            f"{size[0]}x{size[1]}."
        )
    set_size = getattr(model, "set_input_size", None)
    if set_size is None:
        raise InputError(f"{type(model).__name__} supports only its own image size; omit it.")
    try:
        set_size(img_size=size)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{type(model).__name__} does not support images of {size[0]}x{size[1]}: {error}."
        ) from error


def named_candidates(
    models: Candidate | Sequence[Candidate] | Mapping[str, Candidate], dense: nn.Module | None
) -> dict[str, nn.Module]:
    """The models to measure, by name; strategies are wrapped around ``dense``.

    Raises:
        ConfigError: if there is no model, or one has no dense model.
        PartError: for an object that is neither a model nor a strategy.
    """
    if isinstance(models, Candidate):
        models = [models]
    if not isinstance(models, Mapping):
        models = {_name(model, at, len(models)): model for at, model in enumerate(models)}
    if not models:
        raise ConfigError("expected at least one model to time, got none.")
    return {name: _candidate(name, model, dense) for name, model in models.items()}


def _name(model: Candidate, at: int, count: int) -> str:
    if isinstance(model, str | Path | Spec):
        return parse_spec(model).label
    return "reduced" if count == 1 else f"{at}"


def _candidate(name: str, model: Candidate, dense: nn.Module | None) -> nn.Module:
    if not isinstance(model, Candidate):
        raise PartError(f"expected a model or a strategy under {name!r}, got {model!r}.")
    if dense is None and not isinstance(model, ReducedViT):
        raise ConfigError(
            f"{name!r} has no dense model to compare with. Pass dense=, or a model that was "
            "wrapped with tokenred.wrap."
        )
    if dense is not None and not isinstance(model, nn.Module):
        return wrap(dense, model)
    assert isinstance(model, nn.Module)
    return model


def image_shape_of(model: nn.Module, given: Sequence[int] | None = None) -> tuple[int, int, int]:
    """The shape ``(channels, height, width)`` given, or the model's own.

    Raises:
        InputError: for a shape of another length, or a model without an input size.
    """
    if given is not None:
        if len(given) != 3 or min(given) < 1:
            raise InputError(
                f"expected image_shape as (channels, height, width), got {tuple(given)}."
            )
        return int(given[0]), int(given[1]), int(given[2])
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "img_size", None)
    # timm before 1.0.16 has no in_chans; the projection of a deep stem does not see the image.
    proj = getattr(embed, "proj", None)
    channels: Any = getattr(model, "in_chans", None) or getattr(proj, "in_channels", 3)
    if size is None:
        raise InputError(
            f"the input size of {type(model).__name__} is unknown; "
            "pass image_shape=(channels, height, width)."
        )
    return int(channels), int(size[0]), int(size[1])
