"""Reading and writing weight files: nothing executable in, nothing half-written out."""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tokenred.core.errors import CheckpointError, OutputExistsError
from tokenred.core.files import write_whole

__all__ = [
    "PICKLE_SUFFIXES",
    "check_writable",
    "embedded_file",
    "read_checkpoint",
    "save_checkpoint",
]

PICKLE_SUFFIXES = (".pth", ".pt", ".tar", ".bin")
_WRAPPERS = ("model", "state_dict")
_PREFIX = "module."


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read weights and metadata from a file.

    Args:
        path: a ``.safetensors`` file, or a ``.pth``/``.pt``/``.tar``/``.bin`` file of plain
            tensors, optionally inside ``{"model": ...}`` or ``{"state_dict": ...}``. A
            ``module.`` prefix on all names is taken off.

    Returns:
        The weights by name, and the metadata (empty for a file of the second kind).

    Raises:
        CheckpointError: if the file is missing, unreadable, of another kind, or holds anything
            but tensors; a pickle that needs code to be run is refused.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"expected a checkpoint file, found none at {path}; check the path.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in PICKLE_SUFFIXES:
        return _read_pickle(path), {}
    raise CheckpointError(
        f"expected a checkpoint ending in .safetensors, {', '.join(PICKLE_SUFFIXES)}, got "
        f"{path.name!r}; convert it to safetensors."
    )


def embedded_file(name: str) -> AbstractContextManager[Path]:
    """A weight file that comes with the package, as a path while the context is open."""
    return as_file(files("tokenred.models") / name)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _strip(state), dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is no readable safetensors file ({error}); copy or convert it again."
        ) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            # It concerns the refusal below, not the caller.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            loaded = torch.load(path, map_location="cpu", weights_only=True)
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
    if isinstance(loaded, Mapping):
        wrapper = next((w for w in _WRAPPERS if isinstance(loaded.get(w), Mapping)), None)
        loaded = loaded if wrapper is None else loaded[wrapper]
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(
            f"expected a state dict in {path}, got {type(loaded).__name__}; save "
            "model.state_dict(), plain or as {'model': ...} or {'state_dict': ...}."
        )
    strange = [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]
    if strange:
        raise CheckpointError(
            f"expected only tensors in {path}, but these are none: {', '.join(strange[:8])}; save "
            "model.state_dict(), plain or as {'model': ...} or {'state_dict': ...}."
        )
    return _strip({str(name): value for name, value in loaded.items()})


def _strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    if state and all(name.startswith(_PREFIX) for name in state):
        return {name.removeprefix(_PREFIX): value for name, value in state.items()}
    return state


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
