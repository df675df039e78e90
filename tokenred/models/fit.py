"""Loading weights strictly: all checks come before the first parameter is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from tokenred.core.errors import CheckpointError

__all__ = ["check_fit", "describe_weights", "load_strictly", "state_digest"]

_SHOWN = 6
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load weights into a model if, and only if, every one of them fits; its dtypes stay.

    Raises:
        CheckpointError: as `check_fit`; the model is untouched then.
    """
    check_fit(model, state, origin)
    model.load_state_dict(dict(state))


def check_fit(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Refuse weights that a model (also one without memory for them) cannot take one and all.

    Raises:
        CheckpointError: if names are missing or unexpected or shapes or kinds of number differ:
            what the model has in a floating type may come in one of 16, 32 or 64 bits, all else in
            the model's own type.
    """
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    common = [name for name in wanted if name in state]
    shapes = [
        f"{name} is {tuple(state[name].shape)} but should be {tuple(wanted[name].shape)}"
        for name in common
        if state[name].shape != wanted[name].shape
    ]
    types = [
        f"{name} is {state[name].dtype} but should be {wanted[name].dtype}"
        for name in common
        if state[name].dtype not in (_FLOATS if wanted[name].dtype in _FLOATS else ())
        and state[name].dtype != wanted[name].dtype
    ]
    problems = (
        *(("missing", missing), ("unexpected", unexpected)),
        *(("of other shape", shapes), ("of other type", types)),
    )
    if any(names for _, names in problems):
        listed = "; ".join(f"{what}: {_shorten(names)}" for what, names in problems if names)
        only_types = not (missing or unexpected or shapes)
        raise CheckpointError(
            f"the weights in {origin} do not fit {type(model).__name__}, nothing was loaded. "
            f"{listed}. Expected {describe_weights(wanted)}; got {describe_weights(state)}. "
            + ("Convert them to floats first." if only_types else _advice(wanted, state))
        )


def state_digest(state: Mapping[str, Tensor]) -> str:
    """16 hex digits of SHA-256 over names, types, shapes and values of weights."""
    running = hashlib.sha256()
    for name, value in sorted(state.items()):
        value = value.detach().cpu().contiguous()
        running.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        # By bytes, since NumPy knows no bfloat16.
        running.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return running.hexdigest()[:16]


def describe_weights(state: Mapping[str, Tensor]) -> str:
    """Such as ``width 384, 12 blocks, patch 16, 197 positions, 1000 classes``, of what is there."""
    blocks = {name.split(".")[1] for name in state if name.startswith("blocks.")}
    patch = state.get("patch_embed.proj.weight")
    positions = state.get("pos_embed")
    classes = _classes(state)
    words = []
    if patch is not None and patch.ndim == 4:
        words.append(f"width {patch.shape[0]}")
    if blocks:
        words.append(f"{len(blocks)} blocks")
    if patch is not None and patch.ndim == 4:
        words.append(f"patch {patch.shape[-1]}")
    if positions is not None and positions.ndim == 3:
        words.append(f"{positions.shape[1]} positions")
    if classes is not None:
        words.append(f"{classes} classes")
    return ", ".join(words) or f"{len(state)} weights of an unknown kind"


def _classes(state: Mapping[str, Tensor]) -> int | None:
    head = state.get("head.weight")
    return None if head is None or head.ndim != 2 else head.shape[0]


def _advice(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    classes = _classes(state)
    only_head = all(
        name.startswith(("head.", "aux_head."))
        for name in wanted.keys() | state.keys()
        if name not in wanted or name not in state or wanted[name].shape != state[name].shape
    )
    if only_head and classes is not None:
        return f"Pass num_classes={classes}."
    if only_head:
        return "The file has no classifier head; pass num_classes=0."
    return "Choose the model that these weights were made for."


def _shorten(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
