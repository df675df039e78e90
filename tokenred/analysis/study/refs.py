"""Models and data by reference: how to load them, and when they may have changed."""

import copy
import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tokenred
from tokenred.analysis.measure.inputs import open_for
from tokenred.analysis.measure.machine import base_of, name_of
from tokenred.analysis.measure.timing import resize
from tokenred.core.errors import ConfigError, DataError, shown
from tokenred.core.files import exists
from tokenred.data import ImageDataset
from tokenred.data.places import CIFAR10, located
from tokenred.data.sources import walk
from tokenred.reduced.model import ReducedViT

# Increased when the form of keys changes, or the results of loop, engines or built-in metrics.
KEYS = 3
SETTLED = 2.0
"""Seconds after which a file that changed again would have another time."""
_AMP = "amp:"


@dataclass(frozen=True, eq=False)
class ModelRef:
    """A model, given by arguments of `tokenred.models.load_model` or directly.

    For a `ReducedViT`, its base is used, with its learned parts in the strategies that have them.
    """

    label: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    module: nn.Module | None = None  # instead of arguments
    image_size: tuple[int, int] | None = None  # (height, width) of its images; None for its own

    def stamp(self) -> str | None:
        """Changes when the weights may; None for a model in memory or a file just written."""
        if self.module is not None:
            return None
        told = sorted((name, str(value)) for name, value in self.arguments.items())
        files = [Path(v) for name, v in told if name in ("spec", "checkpoint") and exists(v)]
        # Named models come from timm, or are embedded.
        files += sorted(_package("models").glob("*.safetensors"))
        stamps = [_stamp_of(file) for file in files]
        if None in stamps:
            return None
        told += [("image_size", str(self.image_size)), ("timm", version("timm"))]
        return f"model {KEYS} {told} {stamps} {tokenred.__version__}"

    def load(self) -> nn.Module:
        """The model, in eval mode. Random weights are the same at every load."""
        if self.image_size is None:
            return self._load() if self.module is None else self.module
        model = self._load() if self.module is None else copy.deepcopy(self.module)
        if isinstance(model, ReducedViT):
            raise ConfigError("image_size is for dense models; wrap a model of that size.")
        resize(model, self.image_size)
        return model

    def _load(self) -> nn.Module:
        from tokenred.models import load_model
        from tokenred.reduced.saving import is_saved, load

        if len(self.arguments) == 1 and is_saved(spec := Path(str(self.arguments["spec"]))):
            return load(spec)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return load_model(**self.arguments)


@dataclass(frozen=True, eq=False)
class DataRef:
    """Data, given by arguments of `tokenred.data.open_dataset` or as a dataset."""

    label: str
    arguments: Mapping[str, Any] = field(default_factory=dict)  # source, split, class_map
    dataset: ImageDataset | None = None  # instead of those, or what was already opened with them

    def stamp(self) -> str | None:
        """Changes when the images may have.

        None where that cannot be known without reading them: for a dataset that is in memory or
        from a hub, or a file that was written just now.
        """
        if not self.arguments:
            return None
        source = str(self.arguments["source"])
        path = Path(source.removeprefix(CIFAR10))
        if source == "digits":  # which are bundled
            path = _package("data") / "digits.npz"
        if not exists(path):
            return None
        if path.is_dir():
            from tokenred.data.layout import narrow_to_split  # brings timm with it

            with suppress(DataError):  # the reader reports what is wrong with it
                path = narrow_to_split(path, self.arguments["split"])[0]
        told = sorted((k, str(v)) for k, v in self.arguments.items())
        stamp = _stamp_of(path)
        return None if stamp is None else f"data {KEYS} {told} {stamp}"

    def open(self, model: nn.Module) -> ImageDataset:
        """The dataset, with the model's preprocessing if it has none itself."""
        told = dict(self.arguments)
        try:
            if self.dataset is not None:
                return open_for(base_of(model), self.dataset)
            return open_for(base_of(model), told.pop("source"), **told)
        except OSError as error:
            raise DataError(f"cannot open the data {self.label!r}: {error}.") from error


def read_model(given: Any) -> ModelRef:
    """A reference from a name or path, a mapping with ``spec``, or a model."""
    if isinstance(given, ModelRef):
        return given
    if isinstance(given, nn.Module):
        return ModelRef(name_of(given), module=given)
    if isinstance(given, str | os.PathLike):
        given = {"spec": os.fspath(given)}
    if not isinstance(given, Mapping) or "spec" not in given:
        raise ConfigError(
            "expected a model: a name, a path, a table with 'spec' and arguments of "
            f"tokenred.models.load_model, or a model itself; got {shown(given)}."
        )
    arguments = {str(k): v for k, v in given.items()}
    label = str(arguments["spec"])
    label = Path(label).stem if label.endswith(".safetensors") else label
    if "checkpoint" in arguments:
        label += f" ({Path(arguments['checkpoint']).stem})"
    for name in {"spec", "checkpoint"} & arguments.keys():
        text = str(arguments[name])
        path = Path(text).expanduser()
        is_path = exists(path) and (os.sep in text or path.is_file())
        # A path holds in every worker, whatever its folder is; a name stays as it is.
        arguments[name] = str(path.resolve()) if is_path else text
    return ModelRef(label, arguments)


def read_data(given: Any, split: str | None, class_map: Any) -> DataRef:
    """A reference from anything that `tokenred.analysis.evaluate` accepts, except loaders."""
    if isinstance(given, DataRef):
        return given
    if isinstance(given, str | os.PathLike):
        given = {"source": os.fspath(given)}
    if isinstance(given, Mapping):
        if "source" not in given or set(given) - {"source", "split", "class_map"}:
            raise ConfigError(
                "expected data as a table of source, split and class_map, with at least the first; "
                f"got {', '.join(map(str, given)) or 'nothing'}."
            )
        told = {"split": split, "class_map": class_map} | {str(k): v for k, v in given.items()}
        source = str(told["source"])
        # The names that `open_dataset` gives.
        name = Path(source).expanduser().name or source
        label = "cifar10" if source.startswith(CIFAR10) else name
        if source == "cifar10" and (path := os.environ.get("TOKENRED_DATA")):
            source = f"{CIFAR10}{path}"
        return DataRef(label, {**told, "source": located(source)})
    if not isinstance(given, ImageDataset):
        raise ConfigError(
            "expected data: a name, a path, a table with 'source', or an ImageDataset (a loader "
            f"cannot be told apart from another); got {type(given).__name__}."
        )
    return DataRef(given.name, dataset=given)


def precision_of(text: str | None) -> tuple[torch.dtype | None, torch.dtype | None]:
    """The type of the weights, and that of mixed precision, from ``"bfloat16"``, ``"amp:…"``."""
    if text is None:
        return None, None
    name = text.removeprefix(_AMP)
    found: torch.dtype = getattr(torch, name)
    return (found, None) if name == text else (None, found)


def _stamp_of(path: Path) -> str | None:
    """A digest of path, size, times and inode of a file, or of all files in a folder.

    None if one changed in the last seconds: the next change might not change its time.
    """
    path = path.resolve()
    places = [str(path)]
    if path.is_dir():
        places = sorted(str(path / name) for name in walk(path)[0])
    seen, latest = hashlib.sha256(), 0.0
    for place in places:
        about = os.stat(place)
        times = about.st_mtime_ns, about.st_ctime_ns
        latest = max(latest, about.st_mtime, about.st_ctime)
        seen.update(f"{place!r} {about.st_size} {times} {about.st_ino}\n".encode())
    return None if time.time() - latest < SETTLED else seen.hexdigest()[:16]


def _package(folder: str) -> Path:
    return Path(tokenred.__file__).parent / folder
