"""Reading and writing weight files: nothing executable in, nothing half-written out."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tokenred.core.errors import CheckpointError, CheckpointWarning, OutputExistsError
from tokenred.core.files import write_whole

__all__ = [
    "PICKLE_SUFFIXES",
    "check_writable",
    "read_checkpoint",
    "save_checkpoint",
]

PICKLE_SUFFIXES = (".pth", ".pt", ".tar", ".bin")
_HOW = "save model.state_dict(), plain or as {'model': ...} or {'state_dict': ...}."
_AVERAGED = ("state_dict_ema", "model_ema")
_RAW = ("state_dict", "model")
# Of torch.compile and of data parallelism, one around the other, either way.
_PREFIXES = ("_orig_mod.", "module.", "_orig_mod.")


def read_checkpoint(
    path: str | os.PathLike[str], *, use_ema: bool | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read weights and metadata from a file.

    Args:
        path: a ``.safetensors`` file, or a ``.pth``/``.pt``/``.tar``/``.bin`` file of plain
            tensors, or one of a training that holds them: raw ones as ``state_dict`` or ``model``,
            averaged ones as ``state_dict_ema`` or ``model_ema``. The prefixes ``module.`` and
            ``_orig_mod.`` are taken off.
        use_ema: which of those to take. By default averaged ones where there are some, as timm
            does, with a warning where there are raw ones too.

    Returns:
        The weights by name, and the metadata (empty for a file of the second kind).

    Raises:
        CheckpointError: if the file is missing, unreadable, of another kind, or lacks the weights
            that are asked for; a pickle that needs code to be run is refused.

    Warns:
        CheckpointWarning: where weights had to be chosen.
    """
    if not isinstance(path, str | os.PathLike):
        raise CheckpointError(f"expected the path of a checkpoint, got {type(path).__name__}.")
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"expected a checkpoint file, found none at {path}; check the path.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in PICKLE_SUFFIXES:
        state = _chosen(_read_pickle(path), use_ema, path)
        return _strip({str(name): value for name, value in state.items()}, path), {}
    raise CheckpointError(
        f"expected a checkpoint ending in .safetensors, {', '.join(PICKLE_SUFFIXES)}, got "
        f"{path.name!r}; convert it to safetensors."
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is no readable safetensors file ({error}); copy or convert it again."
        ) from error
    return _strip(state, path), metadata


def _read_pickle(path: Path) -> Any:
    _check_stored(path)
    try:
        # What timm's training puts beside the weights; attributes by name, and nothing that runs.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            # It concerns the refusal below, not the caller.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's own message begins with the advice to run the code.
        reason = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
        raise CheckpointError(
            f"{path} is not a file of plain tensors and was not opened, since loading it could run "
            f"code ({reason.group(1).strip() if reason else 'unsupported pickle'}); convert it to "
            "safetensors where you trust it, with safetensors.torch.save_file(state_dict, "
            "'weights.safetensors')."
        ) from error
    except Exception as error:  # A damaged pickle may raise nearly anything.
        raise CheckpointError(
            f"{path} is no readable PyTorch checkpoint ({type(error).__name__}: {error}); copy it "
            "again."
        ) from error


def _check_stored(path: Path) -> None:
    """Refuse an archive that unpacks to more than it is; PyTorch compresses nothing."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except Exception as error:  # zipfile raises many kinds
        raise CheckpointError(f"{path} is no readable PyTorch checkpoint ({error}).") from error
    if unpacked > path.stat().st_size:
        raise CheckpointError(
            f"{path} unpacks to {unpacked} bytes and was not written by PyTorch; it was not opened."
        )


def _chosen(loaded: Any, use_ema: bool | None, path: Path) -> Mapping[Any, Tensor]:
    """The weights in what a file holds, which timm would take where it is left open."""
    state, taken = loaded, ""
    if isinstance(loaded, Mapping):
        averaged = [key for key in _AVERAGED if loaded.get(key) is not None]
        raw = [key for key in _RAW if loaded.get(key) is not None]
        if use_ema and not averaged:
            raise CheckpointError(
                f"expected averaged weights in {path} ({' or '.join(_AVERAGED)}), found none; "
                "leave use_ema out."
            )
        wanted = [*([] if use_ema is False else averaged), *([] if use_ema else raw)]
        taken = wanted[0] if wanted and isinstance(loaded[wanted[0]], Mapping) else ""
        state = loaded[taken] if taken else loaded
        if use_ema is None and averaged and raw:
            warnings.warn(
                f"{path} holds averaged and raw weights; those of {taken!r} are taken. Pass "
                "use_ema=True to say so, or use_ema=False for the raw ones.",
                CheckpointWarning,
                stacklevel=4,
            )
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(
            f"expected a state dict in {path}, got {type(state).__name__}; {_HOW}"
        )
    strange = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise CheckpointError(
            f"expected only tensors in {path}, but these are none: {', '.join(strange[:8])}; {_HOW}"
        )
    return state


def _strip(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if name in found:
            raise CheckpointError(
                f"expected each weight once in {path}, but {name} is there with and without "
                f"{' and '.join(_PREFIXES[:2])}; keep one of them."
            )
        found[name] = value
    return found


def check_writable(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Refuse an output that cannot or must not be written, before the work that makes it.

    Args:
        path: the file to be written.
        overwrite: whether an older file may be replaced.

    Returns:
        The path.

    Raises:
        OutputExistsError: if the file exists and ``overwrite`` is false.
        CheckpointError: if it is not named ``*.safetensors`` or its folder does not exist.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"expected a name ending in .safetensors to write to, got {path.name!r}; rename it."
        )
    if not path.parent.is_dir():
        raise CheckpointError(
            f"expected a folder at {path.parent} to write {path.name} into; create it first."
        )
    if path.is_dir() or (path.exists() and not overwrite):
        raise OutputExistsError(
            f"expected no file at {path}, but there is one; choose another name or pass "
            "overwrite=True."
        )
    return path


def save_checkpoint(
    path: str | os.PathLike[str],
    model_state: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    overwrite: bool = False,
) -> Path:
    """Write weights and metadata to a safetensors file, at once or not at all.

    Args:
        path: the file to write, named ``*.safetensors``.
        model_state: weights by name; kept in their dtype.
        metadata: facts by name; values that are not strings are stored as JSON.
        overwrite: whether an older file may be replaced.

    Returns:
        The path.

    Raises:
        OutputExistsError: if the file exists and ``overwrite`` is false.
        CheckpointError: if the name or folder is wrong, or a value is not a tensor or not JSON.
    """
    path = check_writable(path, overwrite=overwrite)
    strange = [name for name, value in model_state.items() if not isinstance(value, Tensor)]
    if strange:
        raise CheckpointError(
            f"expected only tensors to save, but these are none: {', '.join(strange[:8])}; "
            "put facts into metadata."
        )
    try:
        notes = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"expected metadata that JSON can hold, got {error}; turn such values into strings."
        ) from error
    # safetensors refuses tensors that share storage, such as tied weights: hence the copies.
    state = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in model_state.items()}
    return write_whole(path, lambda place: place.write_bytes(save(state, notes)))
