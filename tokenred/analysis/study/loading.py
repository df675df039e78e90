"""Models and data from their references."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from tokenred.analysis.study.refs import DataRef, ModelRef
from tokenred.core.errors import ConfigError
from tokenred.core.fingerprint import digest, identity_of
from tokenred.core.values import read
from tokenred.core.wording import shown
from tokenred.reduced.model import ReducedViT

if TYPE_CHECKING:
    from tokenred.data import ImageDataset

__all__ = [
    "content_of",
    "data_identity",
    "load_base",
    "model_identity",
    "open_data",
    "precision_of",
]

_OF_DATASETS = ("source", "labels", "classes", "name", "transform")
_DTYPES = ("float32", "float64", "bfloat16", "float16")
_AMP = "amp:"
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
    from tokenred.models import load_model
    from tokenred.reduced.saving import load

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
    from tokenred.models.likeness import evaluating

    learned: list[Any] = []
    if isinstance(model, ReducedViT):
        learned = [model.strategy.fingerprint(), model._modules.get("parts")]
        model = model.base
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    told = {k: str(config.get(k)) for k in _PREPROCESSING}
    with evaluating(model):
        return identity_of([model, told, learned], type(model).__name__)


def content_of(data: ImageDataset) -> str:
    """A digest of the images of a dataset and of their names, bytes for bytes."""
    from tokenred.data.sources import raw_of

    seen = hashlib.sha256()
    for index in range(len(data)):
        try:
            raw = raw_of(data.source, index)
        except Exception:  # unreadable: its name counts
            raw = b""
        seen.update(f"{data.name_of(index)!r} {len(raw)} ".encode())
        seen.update(raw)
    return seen.hexdigest()[:16]


def data_identity(ref: DataRef, data: ImageDataset, content: str) -> str:
    """A digest of images, labels, and of what an own dataset makes of the images.

    Args:
        ref: where the data is from.
        data: opened.
        content: of its images, see `content_of`.

    Raises:
        PartError: for an own transform or dataset that cannot be told apart from another.
    """
    from tokenred.data import ImageDataset

    told = [content, data.labels, data.classes]
    if ref.dataset is not None:
        name = f"the dataset {data.name!r}"
        told.append(identity_of(ref.dataset.transform, f"{name} > transform"))
        if type(data) is not ImageDataset:
            own = {k: v for k, v in vars(data).items() if k not in _OF_DATASETS}
            told.append(identity_of([type(data), own], name))
    return digest(repr(told))
