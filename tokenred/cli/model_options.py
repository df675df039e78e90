"""What the commands make of the options about a model."""

from __future__ import annotations

from pathlib import Path

from tokenred.core.errors import ConfigError

__all__ = ["model_title", "read_numbers"]


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
