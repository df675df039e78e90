"""A model by name, at an image size and in a number type, for measuring speed and memory."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from tokenred.core.errors import ConfigError, InputError

__all__ = ["DTYPES", "build_model", "check_dtype", "resize"]

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def check_dtype(name: str) -> torch.dtype:
    """The type of a name.

    Raises:
        ConfigError: for another name.
    """
    if name not in DTYPES:
        raise ConfigError(f"expected a dtype among {', '.join(DTYPES)}, got {name!r}.")
    return DTYPES[name]


def build_model(
    name: str | Path,
    image_size: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> nn.Module:
    """A model in eval mode on the CPU, without a download.

    timm's models get random weights, always the same: neither speed nor memory hangs on their
    values. The embedded models and checkpoints have their own.

    Args:
        name: what `tokenred.models.load_model` takes.
        image_size: (height, width) of the images; the position embedding is resized to it.
        dtype: of the weights.
        seed: of random weights.

    Raises:
        UnknownNameError: if timm has no such model.
        CheckpointError: for a file that is no checkpoint.
        InputError: for a size that the model cannot take.
    """
    from tokenred.models import load_model
    from tokenred.models.embedded import EMBEDDED_MODELS

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
        InputError: for a size that it cannot take.
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
        raise InputError(f"{type(model).__name__} takes images of its own size only; leave it out.")
    try:
        set_size(img_size=size)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{type(model).__name__} cannot take images of {size[0]}x{size[1]}: {error}."
        ) from error
