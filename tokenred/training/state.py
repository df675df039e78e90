"""Checkpoints of a training that is under way: one whole file, from which it goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokenred.core.errors import CheckpointError, ConfigError
from tokenred.core.files import write_whole
from tokenred.data import ImageDataset
from tokenred.data.sources import raw_of

__all__ = ["check_same_run", "images_digest", "read_state", "weights_digest", "write_state"]

_FORMAT = "tokenred-training/1"


def write_state(path: Path, state: dict[str, Any]) -> Path:
    """Write a state of tensors and plain values, whole or not at all.

    Args:
        path: an older state there is replaced.
        state: what `read_state` gives back.
    """
    return write_whole(path, lambda place: torch.save({"format": _FORMAT, **state}, place))


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote, on the CPU. Nothing in the file is executed.

    Raises:
        CheckpointError: for a file that is missing, damaged or of another kind.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged pickle may raise nearly anything.
        raise CheckpointError(
            f"expected the checkpoint of a training at {path}, got {type(error).__name__}: "
            f"{error}. Start afresh in another folder."
        ) from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not a training's checkpoint; start in another folder.")
    return state


def weights_digest(model: nn.Module) -> str:
    """A short name for the values of a model's weights."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def images_digest(data: ImageDataset, members: Sequence[int]) -> str:
    """A short name for labels and content of some images, whatever they are called.

    An image that cannot be read counts as such.
    """
    digest = hashlib.sha256()
    for index in members:
        digest.update(f"{data.labels[index]} ".encode())
        try:
            content = raw_of(data.source, index)
        except Exception as error:  # as decoders raise them
            content = type(error).__name__.encode()
        digest.update(hashlib.sha256(content).digest())
    return f"{data.name}, {len(members)} images, {digest.hexdigest()[:16]}"


def check_same_run(saved: dict[str, Any], asked: dict[str, Any], path: Path) -> None:
    """Refuse to go on with other settings than the run began with.

    Args:
        saved: what the run is, as its checkpoint says.
        asked: what it is to be.
        path: of the checkpoint.

    Raises:
        ConfigError: names what differs.
    """
    differs = [
        f"{name} {saved.get(name)!r} there, {asked.get(name)!r} now"
        for name in sorted({*saved, *asked})
        if saved.get(name) != asked.get(name)
    ]
    if differs:
        raise ConfigError(
            f"the training in {path.parent} began otherwise: {'; '.join(differs)}. Resume with "
            "what it began with, or choose another folder."
        )
