"""Where data and weights are: known names, paths and hosts, checked without PyTorch."""

import os
import socket
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from tokenred.core.errors import CheckpointError, ConfigError, DataError, did_you_mean, shown
from tokenred.core.files import PICKLE_SUFFIXES, SAFE_SUFFIX, exists

BUNDLED = {"digits": "digits", "cifar10": "cifar10_vit"}
"""The bundled models, by the data that they were trained for."""
DATA_OF = {model: data for data, model in BUNDLED.items()}
"""The reverse."""
NAMED = tuple(BUNDLED)
"""The datasets with a name, and with classes of their own."""

SPLITS = ("test", "train")
"""Theirs."""
CLASS_MAPS = ("imagenet-1k", "folders")
"""The maps from class folders to indices that have a name."""
CIFAR10 = "cifar10:"
"""How a path of CIFAR-10 begins."""
VARIABLE = "TOKENRED_DATA"
HOW = (
    "pass cifar10:PATH with an image folder, zip or tar of it (SPLIT/CLASS/IMAGE), or set "
    f"{VARIABLE} to the folder that holds cifar10-test.zip and cifar10-train.zip"
)
HUB = ("hf-hub:", "hf_hub:", "local-dir:")
"""How names of models begin that timm looks up elsewhere."""

_PATIENCE = 5.0  # seconds for a host to answer


def check_there(source: str | os.PathLike[str]) -> str:
    """The source as text, if it is a known name or there is something at the path.

    Raises:
        DataError: if there is not.
    """
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source):
        raise DataError(
            f"expected the name or path of a dataset, got {shown(source)}; known names: "
            f"{', '.join(NAMED)}."
        )
    text = os.fspath(source)
    if text.partition(":")[0] == "cifar10":
        place_of_cifar10(text.partition(":")[2])
    elif text not in NAMED:
        _check_path(text)
    return text


def _check_path(text: str) -> None:
    path = Path(text).expanduser()
    if not path.exists():
        raise DataError(
            f"expected a dataset at {text}, found nothing.{did_you_mean(text, NAMED)} Pass an "
            f"image folder, a zip or a tar of one, or a known name: {', '.join(NAMED)}."
        )
    suffix = path.suffix.lower()
    if path.is_file() and suffix != ".tar" and not zipfile.is_zipfile(path):
        if suffix == ".zip":
            raise DataError(
                f"expected a readable zip file at {path}, found a damaged or another file; "
                "copy or create it again."
            )
        raise DataError(
            f"expected an image folder, a .zip or a .tar, got the file {path}; name its folder, "
            "unpack it or pack it."
        )


def check_fits(source: str, split: str | None, class_map: Any = None) -> None:
    """Refuse a split that named data does not have, and classes in place of its own.

    Raises:
        DataError: for the split.
        ConfigError: for the classes.
    """
    name = source.partition(":")[0]
    if name not in NAMED:
        return
    if split not in (None, *SPLITS):
        raise DataError(
            f"{name} has the splits {' and '.join(SPLITS)}, got {shown(split)}; use one of them."
        )
    if isinstance(class_map, str | Mapping):
        raise ConfigError(
            f"{source} has classes of its own, got the class map {shown(class_map)}; leave it out."
        )


def place_of_cifar10(path: str) -> Path:
    """Where CIFAR-10 should be: a folder or an archive, or the folder that has its archives."""
    folder = path or os.environ.get(VARIABLE)
    if not folder:
        raise DataError(f"expected the location of CIFAR-10, got nothing; {HOW}.")
    given = Path(folder).expanduser()
    if path and not given.exists():
        raise DataError(f"expected CIFAR-10 at {given}, found nothing; {HOW}.")
    if given.is_file():
        _check_path(str(given))
    return given


def located(text: str, folder: Path = Path()) -> str:
    """A path in a folder as an absolute one, also after ``cifar10:``; names stay as they are."""
    prefix = CIFAR10 if text.startswith(CIFAR10) else ""
    path = folder / Path(text.removeprefix(prefix)).expanduser()
    if text in ("", prefix, *NAMED, "dense") or not exists(path):
        return text
    return f"{prefix}{path.resolve()}"


def names_file(model: str) -> bool:
    """Whether the name of a model is the path of a file."""
    if model.startswith(HUB):
        return False
    separators = [sep for sep in (os.sep, os.altsep) if sep]
    ends = model.endswith((SAFE_SUFFIX, *PICKLE_SUFFIXES))
    return ends or any(sep in model for sep in separators)


def unreadable(path: Path, kind: str, error: Exception) -> CheckpointError:
    """The error for a file of weights that cannot be read as what it should be."""
    return CheckpointError(
        f"cannot read {path} as a {kind} ({type(error).__name__}: {error}); copy or convert it "
        "again."
    )


def unreachable(url: str) -> str:
    """The host of a URL if it cannot be reached; empty if it can, or a proxy may reach it."""
    if getproxies():
        return ""
    place = urlsplit(url)
    try:
        port = place.port or (80 if place.scheme == "http" else 443)
        socket.create_connection((str(place.hostname), port), timeout=_PATIENCE).close()
    except OSError:
        return str(place.hostname)
    return ""


def no_weights(name: str, why: str) -> CheckpointError:
    """The error for a model whose published weights cannot be fetched."""
    if name.startswith(HUB):
        return CheckpointError(
            f"expected {name!r} from the hub, got nothing: {why.rstrip('.')}. Without a network, "
            "name a timm model or a file; 'digits' needs no download."
        )
    return CheckpointError(
        f"expected the published weights of {name!r}, got none: {why.rstrip('.')}. Without a "
        "network, pass checkpoint=FILE with a downloaded file or, unless accuracy is measured, "
        "pretrained=False for random weights; 'digits' needs no download."
    )
