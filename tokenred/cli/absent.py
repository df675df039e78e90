"""Files, models and devices that are not there, refused before PyTorch is imported."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenred.cli.declared import models_of
from tokenred.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    UnknownNameError,
    did_you_mean,
    no_device,
)
from tokenred.core.files import SAFE_SUFFIX, exists
from tokenred.core.plugins import has_plugins
from tokenred.data.places import DATA_OF, HUB, names_file, no_weights, unreachable, unreadable

# Device types, also those that are no packages of PyTorch.
_DEVICES = ("cpu", "cuda", "mps", "xpu", "mtia", "hpu", "ipu", "maia", "xla", "meta")


def refuse_missing(_: Any, given: Path | tuple[Path, ...] | None) -> None:
    """Refuse paths of files that are not there."""
    for path in given if isinstance(given, tuple) else filter(None, [given]):
        if not exists(path.expanduser()):
            raise DataError(f"cannot read {path}: no such file; check the path.")


def refuse_models(given: Mapping[str, Any], axis: Iterable[Any]) -> None:
    """Refuse models that cannot be loaded.

    Args:
        given: the options of a command.
        axis: the models on its axes.
    """
    chosen: Any = given.get("model") or ()
    if hasattr(chosen, "checkpoint"):  # a group of options
        if chosen.use_ema is not None and chosen.checkpoint is None:
            raise ConfigError("expected --checkpoint with --use-ema, got none.")
        if chosen.random_weights and chosen.checkpoint is not None:
            raise ConfigError(
                "--random-weights and --checkpoint exclude each other; leave one of them out."
            )
        chosen = chosen.model
    several = chosen if isinstance(chosen, tuple) else (chosen,)
    for name in (*several, *axis):
        if isinstance(name, str):
            _refuse_model(name)
    for option in ("smaller", "reference"):
        if isinstance(name := given.get(option), str):
            _refuse_model(name)
            if host := unreachable_host(name):
                raise CheckpointError(
                    f"--{option}: expected the published weights of {name!r}, got none: {host} "
                    "cannot be reached. Pass a .safetensors file or a bundled model."
                )


def refuse_weights(_: Any, given: Path | None) -> None:
    """Refuse a file of weights that cannot be read, as far as its header says."""
    refuse_missing(_, given)
    if given is not None and given.suffix.lower() == SAFE_SUFFIX:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(given.expanduser(), framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise unreadable(given, "safetensors file", error) from error


def refuse_store(place: Path) -> None:
    """Refuse what is there but no store, and a new one without a folder."""
    if exists(place) or not exists(place.parent):
        from tokenred.analysis.study.store import Store

        Store(place, readonly=place.is_file()).close()


def refuse_unreachable(name: str) -> None:
    """Refuse a model whose published weights are in no cache, if there is no network."""
    if host := unreachable_host(name):
        raise no_weights(name, f"{host} cannot be reached")


def unreachable_host(name: str) -> str:
    """The host of a model's published weights, if they are not here and it cannot be reached."""
    prefix, _, rest = name.partition(":")
    if name.casefold() in DATA_OF or names_file(name) or prefix == "local-dir" or has_plugins():
        return ""
    if not rest and name.partition(".")[0] not in models_of("timm")[0]:
        return ""
    from huggingface_hub import constants  # without PyTorch

    wanted = rest.partition("@")[0].replace("/", "--") if rest else f"timm--{name}"
    cached = Path(constants.HF_HUB_CACHE).glob(f"models--{wanted}*")
    return "" if any(cached) else unreachable(constants.ENDPOINT)


def refuse_devices(given: Mapping[str, Any], axis: Iterable[str]) -> None:
    """Refuse devices that this machine lacks, before models are loaded.

    Args:
        given: the options of a command.
        axis: the devices on its axes.
    """
    named = given.get("devices") or given.get("device") or ()
    named = [named] if isinstance(named, str) else named
    others = {*named, *axis} - {"cpu"}
    if others and given.get("engine") != "ray":
        for device in others:
            if why := _why_absent(*device.split(":")):
                raise no_device(device, why)
        from tokenred.core.tensors import check_device

        for device in others:
            check_device(device)


def _refuse_model(name: str) -> None:
    """Refuse a file that is not there, and a name that timm's source never mentions."""
    if names_file(name):
        refuse_weights(None, Path(name))
        return
    # With timm, its registry knows all models, own ones too.
    if name.startswith(HUB) or name.casefold() in DATA_OF or "timm" in sys.modules or has_plugins():
        return
    (known, source), (own, _) = models_of("timm"), models_of("tokenred")
    architecture, known = re.escape(name.partition(".")[0]), known | own
    if known and name not in own and not re.search(rf"\b{architecture}\b", source):
        raise UnknownNameError.of_model(name, known | DATA_OF.keys())


def _why_absent(kind: str, index: str = "", *rest: str) -> str:
    """Why this machine cannot have such a device, if that is known without PyTorch."""
    torch = find_spec("torch")
    folders = [Path(place) for place in torch.submodule_search_locations or ()] if torch else []
    known = kind in _DEVICES or any((folder / kind).is_dir() for folder in folders)
    if rest or (not known and not entry_points(group="torch.backends")):
        return f"not a device type of PyTorch.{did_you_mean(kind, _DEVICES)}".rstrip(".")
    if kind == "cpu" and index not in ("", "0"):
        return "the CPU is one device"
    if kind == "mps" and sys.platform != "darwin":
        return "only macOS has it"
    if kind == "cuda" and sys.platform == "linux" and not Path("/dev/kfd").exists():  # nor AMD's
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return "no GPU driver was found"
    return ""
