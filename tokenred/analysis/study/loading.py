"""Models and data from their references."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from tokenred.analysis.study.refs import DataRef, ModelRef
from tokenred.core.errors import ConfigError
from tokenred.core.model import ReducedViT
from tokenred.core.values import read
from tokenred.core.wording import shown

if TYPE_CHECKING:
    from tokenred.data import ImageDataset

__all__ = ["data_identity", "load_base", "model_identity", "open_data", "precision_of"]

_DTYPES = ("float32", "float64", "bfloat16", "float16")
_AMP = "amp:"
_SAMPLED = 64
_BLOCK = 1 << 20
_PREPROCESSING = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


def precision_of(text: str | None) -> tuple[torch.dtype | None, torch.dtype | None]:
    """The type of the weights, and that of mixed precision, from ``"bfloat16"``, ``"amp:…"``.

    Raises:
        ConfigError: for another word.
    """
    if text is None:
        return None, None
    text = read(str, text, "dtype")
    name = text.removeprefix(_AMP)
    allowed = _DTYPES if name == text else _DTYPES[2:]
    if name not in allowed:
        choices = [*_DTYPES, *(f"{_AMP}{name}" for name in _DTYPES[2:])]
        raise ConfigError(f"expected dtype as one of {', '.join(choices)}, got {shown(text)}.")
    found: torch.dtype = getattr(torch, name)
    return (found, None) if name == text else (None, found)


def load_base(ref: ModelRef) -> nn.Module:
    """The model, in eval mode. Random weights are the same at every load."""
    if ref.module is not None:
        return ref.module
    from tokenred.core.saving import load
    from tokenred.models import load_model

    spec = Path(str(ref.arguments["spec"]))
    if spec.suffix == ".safetensors" and len(ref.arguments) == 1 and _is_saved(spec):
        return load(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_model(**ref.arguments)


def _is_saved(path: Path) -> bool:
    """Whether a file is from `tokenred.save`: it holds a strategy and learned parts, too."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError):
        return False  # the loader will say what is wrong with it
    return "strategy" in metadata


def open_data(ref: DataRef, model: nn.Module) -> ImageDataset:
    """The dataset, with the model's preprocessing where it has none of its own."""
    from tokenred.analysis.measure.inputs import open_for

    model = model.base if isinstance(model, ReducedViT) else model
    if ref.dataset is not None:
        return open_for(model, ref.dataset)
    told = dict(ref.arguments)
    return open_for(model, told.pop("source"), **told)


def model_identity(model: nn.Module) -> str:
    """A digest of all that a model's logits come from: equal ones give equal logits.

    Classes, attributes, weights and other tensors of all modules, functions put on them, hooks,
    versions of packages, and the preprocessing. Training mode is none of it.

    Raises:
        PartError: for an own module that holds what cannot be told apart from another.
    """
    from tokenred.core.fingerprint import identity_of
    from tokenred.models.probe import evaluating

    learned: list[Any] = []
    if isinstance(model, ReducedViT):
        learned = [model.strategy.fingerprint(), model._modules.get("parts")]
        model = model.base
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    told = {k: str(config.get(k)) for k in _PREPROCESSING}
    with evaluating(model):
        return identity_of([model, told, learned], type(model).__name__)


def data_identity(ref: DataRef, data: ImageDataset) -> str:
    """A digest of images and labels.

    An archive is read as a whole. Of a folder names and sizes count, of a dataset in memory names
    and a sample of the pixels.
    """
    seen = hashlib.sha256(f"{data.labels}\n{tuple(data.classes)}".encode())
    path = ref.path() if ref.dataset is None else None
    if path is not None and path.is_file():
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                seen.update(block)
    elif path is not None:
        seen.update("\n".join(_listing(path)).encode())
    for index in range(len(data)):
        seen.update(data.name_of(index).encode())
    if ref.dataset is not None:
        step = max(1, len(data) // _SAMPLED)
        for index in range(0, len(data), step):
            try:
                seen.update(data.source.image(index).tobytes())
            except Exception:  # unreadable: its name counts
                seen.update(b"unreadable")
        # Addresses say nothing and change.
        seen.update(re.sub(r" at 0x[0-9a-f]+", "", repr(data.transform)).encode())
    return seen.hexdigest()[:16]


def _listing(folder: Path) -> list[str]:
    found = []
    for place, _, files in os.walk(folder, followlinks=True):
        for name in files:
            path = Path(place, name)
            found.append(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}")
    return sorted(found)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
