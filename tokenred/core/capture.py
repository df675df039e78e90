"""Detect whether a forward runs eagerly or is captured, and helpers that every compiler accepts."""

import sys
from collections.abc import Callable
from dataclasses import fields
from types import FrameType
from typing import Any, TypeVar

import torch
from torch import Tensor

from tokenred.core.errors import ConfigError

T = TypeVar("T")

# Without `is_exporting` (before PyTorch 2.7) exporting looks like compiling.
_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)
# The `torch.func` transforms (vmap, grad) on top of plain tensors; None if there are none.
_functions: Any = getattr(torch._C._functorch, "peek_interpreter_stack", lambda: None)
# PyTorch has no types for it.
is_tracing: Callable[[], bool] = getattr(torch.jit, "is_tracing")  # noqa: B009
_EXPORT = "torch.export with a dynamic batch size, or tokenred.export (`tokenred export`)"


def is_eager() -> bool:
    """Whether operators run eagerly on plain tensors, so that loops and buffers can be used."""
    return not torch.compiler.is_compiling() and not is_transformed()


def is_transformed() -> bool:
    """Whether torch.export, torch.jit.trace or torch.func captures (torch.compile excluded)."""
    if torch.compiler.is_compiling():
        return bool(_is_exporting())
    return is_tracing() or _functions() is not None


def fixed(size: int) -> int:
    """A size that is the same for every batch, as a number; torch.jit.trace returns tensors."""
    return int(size) if isinstance(size, Tensor) else size


def replace(value: T, **changes: Any) -> T:
    """Like ``dataclasses.replace``, whose check PyTorch 2.6 cannot compile."""
    known = value.__dict__
    if not torch.compiler.is_compiling() and changes.keys() <= known.keys():
        # A third of the time, and there are ten in a block.
        made = object.__new__(type(value))
        made.__dict__.update(known, **changes)
        return made
    given = {f.name: getattr(value, f.name) for f in fields(value) if f.init}  # type: ignore[arg-type]
    given.update(changes)
    return type(value)(**given)


def not_scriptable() -> ConfigError:
    """The error for torch.jit.script."""
    return ConfigError(f"torch.jit.script does not support reduced models. Use {_EXPORT}.")


def _called_by(package: str) -> bool:
    # torch.onnx.export(dynamo=True) uses torch.export and leaves no other sign.
    frame: FrameType | None = sys._getframe()
    while frame is not None and not frame.f_globals.get("__name__", "").startswith(package):
        frame = frame.f_back
    return frame is not None


def check_capture(images: Any, adaptive: bool) -> None:
    """Refuse tools that cannot capture a forward correctly, and name one that can.

    Args:
        images: the batch.
        adaptive: whether token counts depend on the images.

    Raises:
        ConfigError: for torch.fx, PyTorch's own ONNX export, a dynamic image size, and adaptive
            counts in a graph.
    """
    if not isinstance(images, Tensor):
        if isinstance(images, torch.fx.Proxy):
            raise ConfigError(
                f"torch.fx cannot trace a reduced model. Use {_EXPORT}; for features of some "
                "blocks, tokenred.features or forward_intermediates."
            )
        return  # the check of the images reports it
    if not is_transformed():
        return
    if torch.onnx.is_in_onnx_export() or (_is_exporting() and _called_by("torch.onnx")):
        raise ConfigError(
            "torch.onnx.export by itself lacks operators that a reduced model needs, such as a "
            "stable sort. Use tokenred.export.to_onnx(model, path), or `tokenred export`."
        )
    if adaptive:
        raise ConfigError(
            "token counts depend on the images, but a graph or a vmap is the same for all. "
            "Use a strategy with fixed counts, or run the images one by one."
        )
    if images.ndim == 4 and any(isinstance(side, torch.SymInt) for side in images.shape[2:]):
        raise ConfigError(
            "height and width cannot be dynamic, because token counts depend on them. "
            "Export one graph per image size, with a dynamic batch size."
        )
