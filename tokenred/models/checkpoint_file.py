"""Weight files: reading runs no code, and writing and loading are all or nothing."""

import argparse
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tokenred.core.errors import CheckpointError, CheckpointWarning
from tokenred.core.files import PICKLE_SUFFIXES, SAFE_SUFFIX, check_output, write_whole
from tokenred.data.places import unreadable

_HOW = "save model.state_dict(), plain or as {'model': ...} or {'state_dict': ...}."
_AVERAGED = ("state_dict_ema", "model_ema")
_RAW = ("state_dict", "model")
# Added by torch.compile and data parallelism.
_PREFIXES = re.compile(r"^(_orig_mod\.|module\.)+")
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_SHOWN = 6


def read_checkpoint(
    path: str | os.PathLike[str], *, use_ema: bool | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read weights and metadata from a file.

    Args:
        path: a ``.safetensors`` file, or a ``.pth``/``.pt``/``.tar``/``.bin`` file of plain
            tensors. A training checkpoint may have raw weights under ``state_dict`` or ``model``,
            and averaged ones under ``state_dict_ema`` or ``model_ema``. The prefixes ``module.``
            and ``_orig_mod.`` are removed.
        use_ema: whether to take the averaged weights of a training checkpoint. By default they
            are taken if there are any, as timm does, with a warning if there are raw ones too.

    Returns:
        The weights by name, and the metadata (empty unless the file is a ``.safetensors``).

    Raises:
        CheckpointError: if the file is missing, unreadable or of another kind, lacks the requested
            weights, or is a pickle that would run code.

    Warns:
        CheckpointWarning: if the file has both raw and averaged weights and ``use_ema`` is None.
    """
    if not isinstance(path, str | os.PathLike):
        raise CheckpointError(f"expected the path of a checkpoint, got {type(path).__name__}.")
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"expected a checkpoint file, found none at {path}; check the path.")
    metadata: dict[str, str] = {}
    state: Mapping[Any, Tensor]
    if path.suffix.lower() == SAFE_SUFFIX:
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata = dict(file.metadata() or {})
        except (SafetensorError, OSError) as error:
            raise unreadable(path, "safetensors file", error) from error
    elif path.suffix in PICKLE_SUFFIXES:
        state = _choose(_read_pickle(path), use_ema, path)
    else:
        raise CheckpointError(
            f"expected a checkpoint ending in {SAFE_SUFFIX}, {', '.join(PICKLE_SUFFIXES)}, got "
            f"{path.name!r}; convert it to safetensors."
        )
    plain = {_PREFIXES.sub("", str(name)): value for name, value in state.items()}
    if len(plain) < len(state):
        raise CheckpointError(
            f"expected each weight once in {path}, but some appear both with and without the "
            "prefix module. or _orig_mod.; keep one of them."
        )
    return plain, metadata


def _read_pickle(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > path.stat().st_size:  # PyTorch compresses nothing
                raise CheckpointError(
                    f"{path} unpacks to {unpacked} bytes and was not written by PyTorch; it was "
                    "not opened."
                )
        # timm's training scripts store a Namespace next to the weights: attributes, no code.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        # PyTorch's own message begins with the advice to run the code.
        reason = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
        raise CheckpointError(
            f"{path} is not a file of plain tensors and was not opened, since loading it could run "
            f"code ({reason.group(1).strip() if reason else 'unsupported pickle'}); if you trust "
            "it, convert it to safetensors with safetensors.torch.save_file(state_dict, "
            "'weights.safetensors')."
        ) from error
    except Exception as error:  # A damaged pickle or zip may raise nearly anything.
        raise unreadable(path, "PyTorch checkpoint", error) from error


def _choose(loaded: Any, use_ema: bool | None, path: Path) -> Mapping[Any, Tensor]:
    """The weights in the content of a file."""
    state = loaded
    if isinstance(loaded, Mapping):
        averaged, raw = (
            [key for key in names if loaded.get(key) is not None] for names in (_AVERAGED, _RAW)
        )
        if use_ema and not averaged:
            raise CheckpointError(
                f"expected averaged weights in {path} ({' or '.join(_AVERAGED)}), found none; "
                "leave use_ema out."
            )
        wanted = [*([] if use_ema is False else averaged), *([] if use_ema else raw)]
        if wanted and isinstance(loaded[wanted[0]], Mapping):
            state = loaded[wanted[0]]
        if use_ema is None and averaged and raw:
            warnings.warn(
                f"{path} holds averaged and raw weights; using those of {wanted[0]!r}. Pass "
                "use_ema=True to confirm, or use_ema=False for the raw ones.",
                CheckpointWarning,
                stacklevel=3,
            )
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(
            f"expected a state dict in {path}, got {type(state).__name__}; {_HOW}"
        )
    _check_tensors(state, f"in {path}", _HOW)
    return state


def _check_tensors(state: Mapping[Any, Any], where: str, how: str) -> None:
    strange = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise CheckpointError(
            f"expected only tensors {where}, but these are not: {_shorten(strange)}; {how}"
        )


def save_checkpoint(
    path: str | os.PathLike[str],
    model_state: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    overwrite: bool = False,
) -> Path:
    """Write weights and metadata to a safetensors file, at once or not at all.

    Args:
        path: ends in ``.safetensors``; its folder exists.
        model_state: tensors by name.
        metadata: strings, and other values, which are stored as JSON.
        overwrite: whether to replace an existing file.

    Raises:
        OutputExistsError: if the file exists and ``overwrite`` is false.
        ConfigError, DataError: for another suffix, or a folder that does not exist.
        CheckpointError: if a weight is not a tensor, or an entry of the metadata is not JSON.
    """
    path = check_output(Path(path), (SAFE_SUFFIX,), overwrite=overwrite)
    _check_tensors(model_state, "to save", "put facts into metadata.")
    try:
        notes = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"expected metadata that JSON can hold, got {error}; convert such values to strings."
        ) from error
    # safetensors refuses tensors that share storage, such as tied weights: hence the copies.
    state = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in model_state.items()}
    return write_whole(path, lambda place: place.write_bytes(save(state, notes)))


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load weights into a model if all of them fit (`check_fit`); the model keeps its dtypes."""
    check_fit(model, state, origin)
    model.load_state_dict(dict(state))


def check_fit(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Check that all weights fit a model, which may be on the device "meta".

    Floating weights may have any floating type of 16, 32 or 64 bits.

    Raises:
        CheckpointError: if names are missing or unexpected, or shapes or types differ.
    """
    wanted = model.state_dict()
    problems: dict[str, list[str]] = {
        "missing": [name for name in wanted if name not in state],
        "unexpected": [name for name in state if name not in wanted],
        "of other shape": [],
        "of other type": [],
    }
    for name in (name for name in wanted if name in state):
        own, given = wanted[name], state[name]
        if given.shape != own.shape:
            told = f"{name} is {tuple(given.shape)} but should be {tuple(own.shape)}"
            problems["of other shape"].append(told)
        if given.dtype != own.dtype and not {given.dtype, own.dtype} <= set(_FLOATS):
            problems["of other type"].append(f"{name} is {given.dtype} but should be {own.dtype}")
    found = {what: texts for what, texts in problems.items() if texts}
    if not found:
        return
    advice = "Choose the model that these weights were made for."
    names = [text.partition(" ")[0] for texts in found.values() for text in texts]
    head = state.get("head.weight")
    if list(found) == ["of other type"]:
        advice = "Convert them to floats first."
    elif all(name.startswith(("head.", "aux_head.")) for name in names):
        advice = f"Pass num_classes={0 if head is None or not head.ndim else head.shape[0]}."
    listed = "; ".join(f"{what}: {_shorten(texts)}" for what, texts in found.items())
    raise CheckpointError(
        f"the weights in {origin} do not fit {type(model).__name__}, nothing was loaded. {listed}. "
        f"{advice}"
    )


def _shorten(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
