"""Models and data by reference: what a worker needs to load them, and when they are the same."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

import tokenred
from tokenred.core.errors import ConfigError, DataError
from tokenred.core.files import exists
from tokenred.core.wording import shown
from tokenred.reduced.model import ReducedViT

if TYPE_CHECKING:
    from tokenred.data import ImageDataset

__all__ = ["KEYS", "DataRef", "ModelRef", "read_data", "read_model", "stamp_of"]

# Raised when the form of keys changes, or what loop, engines and built-in metrics make of cells.
KEYS = 2
_SETTLED = 2.0
_CIFAR10 = "cifar10"


@dataclass(frozen=True, eq=False)
class ModelRef:
    """A model by the arguments of `tokenred.models.load_model`, or itself.

    Attributes:
        label: for tables.
        arguments: to load it with.
        module: in place of those; of a `ReducedViT` the base runs, with its learned parts in those
            strategies that have them.
    """

    label: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    module: nn.Module | None = None

    def stamp(self) -> str | None:
        """Changes when the weights may have.

        None for a model that is in memory, or in a file that was written just now.
        """
        if self.module is not None:
            return None
        files = [v for k, v in sorted(self.arguments.items()) if k in ("spec", "checkpoint")]
        named = [stamp_of(Path(f)) for f in files if exists(Path(f))]
        # Named models come from timm, or are embedded.
        own = [stamp_of(p) for p in sorted(_package("models").glob("*.safetensors"))]
        told = sorted((k, str(v)) for k, v in self.arguments.items())
        if None in named:
            return None
        return f"model {KEYS} {told} {named} {own} timm {version('timm')} {tokenred.__version__}"


@dataclass(frozen=True, eq=False)
class DataRef:
    """Data by the arguments of `tokenred.data.open_dataset`, or a dataset itself.

    Attributes:
        label: for tables.
        arguments: ``source``, ``split``, ``class_map``.
        dataset: in place of those.
    """

    label: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    dataset: ImageDataset | None = None

    def stamp(self) -> str | None:
        """Changes when the images may have.

        None where that cannot be known without reading them: for a dataset that is in memory or
        from a hub, or a file that was written just now.
        """
        path = self.path() if self.dataset is None else None
        if path is None:
            return None
        if path.is_dir():
            from tokenred.data.folder import narrow_to_split  # brings timm with it

            with suppress(DataError):  # the reader will say what is wrong with it
                path = narrow_to_split(path, self.arguments["split"])[0]
        told = sorted((k, str(v)) for k, v in self.arguments.items())
        stamp = stamp_of(path)
        return None if stamp is None else f"data {KEYS} {told} {stamp}"

    def path(self) -> Path | None:
        """Where the data lies; the package's own file for the embedded digits."""
        source = str(self.arguments["source"])
        if source == "digits":
            return _package("data") / "digits.npz"
        text = source.removeprefix(f"{_CIFAR10}:")
        return Path(text) if exists(Path(text)) else None


def read_model(given: Any) -> ModelRef:
    """A reference from a name or path, a mapping with ``spec``, or a model.

    Raises:
        ConfigError: for anything else.
    """
    if isinstance(given, nn.Module):
        return ModelRef(_name_of(given), module=given)
    if isinstance(given, str | os.PathLike):
        given = {"spec": os.fspath(given)}
    if not isinstance(given, Mapping) or "spec" not in given:
        raise ConfigError(
            "expected a model: a name, a path, a table with 'spec' and arguments of "
            f"tokenred.models.load_model, or a model itself; got {shown(given)}."
        )
    arguments = {str(k): v for k, v in given.items()}
    label = str(arguments["spec"])
    for name in ("spec", "checkpoint"):
        if name in arguments:
            arguments[name] = _absolute(str(arguments[name]))
    label = Path(label).stem if label.endswith(".safetensors") else label
    if "checkpoint" in arguments:
        label += f" ({Path(arguments['checkpoint']).stem})"
    return ModelRef(label, arguments)


def read_data(given: Any, split: str | None, class_map: Any) -> DataRef:
    """A reference from what `tokenred.analysis.evaluate` takes, loaders left out.

    Raises:
        ConfigError: for anything else.
    """
    if isinstance(given, str | os.PathLike):
        given = {"source": os.fspath(given)}
    if isinstance(given, Mapping):
        if "source" not in given or set(given) - {"source", "split", "class_map"}:
            raise ConfigError(
                "expected data as a table of source, split and class_map, the first of them at "
                f"least; got {', '.join(map(str, given)) or 'nothing'}."
            )
        told = {"split": split, "class_map": class_map} | {str(k): v for k, v in given.items()}
        source = str(told["source"])
        label = Path(source).name if os.sep in source else source
        told["source"] = _data_source(source)
        return DataRef(label, told)
    from tokenred.data import ImageDataset

    if not isinstance(given, ImageDataset):
        raise ConfigError(
            "expected data: a name, a path, a table with 'source', or an ImageDataset (a loader "
            f"cannot be told apart from another); got {type(given).__name__}."
        )
    return DataRef(given.name, dataset=given)


def stamp_of(path: Path) -> str | None:
    """A digest of path, size, times and inode of a file, or of all files in a folder.

    None where one changed in the last seconds: the next change might leave no other time.
    """
    seen, latest = hashlib.sha256(), 0.0
    for place in sorted(map(str, _files_at(path.resolve()))):
        about = os.stat(place)
        times = about.st_mtime_ns, about.st_ctime_ns
        latest = max(latest, about.st_mtime, about.st_ctime)
        seen.update(f"{place!r} {about.st_size} {times} {about.st_ino}\n".encode())
    return None if time.time() - latest < _SETTLED else seen.hexdigest()[:16]


def _files_at(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    from tokenred.data.folder import walk

    return [path / name for name in walk(path)[0]]


def _package(folder: str) -> Path:
    return Path(tokenred.__file__).parent / folder


def _absolute(text: str) -> str:
    """A path that holds in every worker, whatever its folder is; a name as it is."""
    path = Path(text).expanduser()
    return str(path.resolve()) if exists(path) and (os.sep in text or path.is_file()) else text


def _data_source(source: str) -> str:
    if source == _CIFAR10:
        folder = os.environ.get("TOKENRED_DATA")
        return f"{_CIFAR10}:{Path(folder).expanduser().resolve()}" if folder else source
    if source.startswith(f"{_CIFAR10}:"):
        path = Path(source.partition(":")[2]).expanduser()
        return f"{_CIFAR10}:{path.resolve()}"
    if source == "digits":
        return source
    path = Path(source).expanduser()
    return str(path.resolve()) if exists(path) else source


def _name_of(model: nn.Module) -> str:
    module = model.base if isinstance(model, ReducedViT) else model
    config = getattr(module, "pretrained_cfg", None)
    named = config.get("architecture") if isinstance(config, dict) else None
    return str(named or type(module).__name__)
