"""Options about model, images and device that commands share, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokenred.core.errors import ConfigError

__all__ = [
    "BatchSize",
    "Device",
    "Limit",
    "Mean",
    "ModelName",
    "Overwrite",
    "Progress",
    "Split",
    "Std",
    "Threads",
    "Weights",
    "Workers",
    "data_for",
    "model_title",
    "read_numbers",
]

ModelName = Annotated[
    str,
    typer.Option(help="'digits' or 'cifar10_vit' (embedded), a timm name, or a .safetensors file."),
]
Weights = Annotated[
    Path | None, typer.Option(help="Weights for a timm name, in place of the published ones.")
]
Split = Annotated[str | None, typer.Option(help="Such as test or val.")]
Limit = Annotated[int | None, typer.Option(help="At most so many images.")]
BatchSize = Annotated[int, typer.Option(help="Images in a batch.")]
Workers = Annotated[int, typer.Option(help="Processes that load images.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, …")]
Mean = Annotated[
    str | None, typer.Option(help="Three numbers, where the model records none: r,g,b.")
]
Std = Annotated[str | None, typer.Option(help="Likewise.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is there from an earlier run.")
]
Progress = Annotated[bool, typer.Option("--progress/--no-progress", help="Bars on a terminal.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads of PyTorch.")]


def data_for(model: str, data: str | None) -> str | None:
    """What ``--data`` was given; the embedded digits for their model, None for another one."""
    return data or ("digits" if model.casefold() == "digits" else None)


def model_title(model: str, random_weights: bool = False) -> str:
    """A model's name for titles and tables, from what ``--model`` was given."""
    name = "digits ViT" if model.casefold() == "digits" else model
    if name.endswith(".safetensors"):
        name = Path(name).stem
    return f"{name} (random weights)" if random_weights else name


def read_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers from ``0.5,0.5,0.5``; None where nothing was given.

    Args:
        option: for the message.
        text: what it was given.

    Raises:
        ConfigError: for text of another form.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"expected {option} as three numbers r,g,b, got {text!r}.") from None
