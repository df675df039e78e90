"""Whether a forward just runs, or something makes a graph of it; and what every compiler takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields
from types import FrameType
from typing import Any, TypeVar

import torch
from torch import Tensor

from tokenred.core.errors import ConfigError

__all__ = [
    "check_capture", "fixed", "is_eager", "is_tracing", "is_transformed", "not_scriptable",
    "replace",
]  # fmt: skip

T = TypeVar("T")

# Without `is_exporting` (before PyTorch 2.7) exporting cannot be told from compiling.
_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)
# What `torch.func` (vmap, grad) put on top of plain tensors; None where nothing.
_functions: Any = getattr(torch._C._functorch, "peek_interpreter_stack", lambda: None)
# PyTorch gives it no types.
is_tracing: Callable[[], bool] = getattr(torch.jit, "is_tracing")  # noqa: B009
_EXPORT = "torch.export with an open batch size, or tokenred.export (`tokenred export`)"


def is_eager() -> bool:
    """Whether operators run one by one on plain tensors: loops and buffers are free to be used."""
    return not torch.compiler.is_compiling() and not is_transformed()


def is_transformed() -> bool:
    """Whether torch.export, torch.jit.trace or torch.func watches; torch.compile does not count."""
    if torch.compiler.is_compiling():
        return bool(_is_exporting())
    return is_tracing() or _functions() is not None


def fixed(size: int) -> int:
    """A size that is the same for every batch, as a number: torch.jit.trace gives tensors."""
    return int(size) if isinstance(size, Tensor) else size


def replace(value: T, **changes: Any) -> T:
    """What ``dataclasses.replace`` gives, whose own check PyTorch 2.6 cannot compile."""
    given = {f.name: getattr(value, f.name) for f in fields(value) if f.init}  # type: ignore[arg-type]
    given.update(changes)
    return type(value)(**given)


def not_scriptable() -> ConfigError:
    """What torch.jit.script is told."""
    return ConfigError(f"torch.jit.script cannot read a reduced model. Use {_EXPORT}.")


def _called_by(package: str) -> bool:
    # torch.onnx.export(dynamo=True) captures by torch.export and leaves no other sign.
    frame: FrameType | None = sys._getframe()
    while frame is not None and not frame.f_globals.get("__name__", "").startswith(package):
        frame = frame.f_back
    return frame is not None


def check_capture(images: Any, adaptive: bool) -> None:
    """Refuse what cannot make a right graph of a forward, in one line that says what can.

    Args:
        images: what came as a batch.
        adaptive: whether the images decide how many tokens go.

    Raises:
        ConfigError: for torch.fx, for PyTorch's own way to ONNX, for an open image size, and for
            adaptive counts in a graph.
    """
    if not isinstance(images, Tensor):
        if isinstance(images, torch.fx.Proxy):
            raise ConfigError(
                f"torch.fx cannot follow a reduced model. Use {_EXPORT}; for features of some "
                "blocks, tokenred.features or forward_intermediates."
            )
        return  # what it is, the check of the images says
    if not is_transformed():
        return
    if torch.onnx.is_in_onnx_export() or (_is_exporting() and _called_by("torch.onnx")):
        raise ConfigError(
            "torch.onnx.export by itself lacks operators that a reduced model needs, such as a "
            "stable sort. Use tokenred.export.to_onnx(model, path), or `tokenred export`."
        )
    if adaptive:
        raise ConfigError(
            "the images decide how many tokens go, and a graph or a vmap is the same for all. "
            "Take a strategy whose counts are known beforehand, or run the images one by one."
        )
    if images.ndim == 4 and any(isinstance(side, torch.SymInt) for side in images.shape[2:]):
        raise ConfigError(
            "height and width cannot be open: token counts are numbers that depend on them. "
            "Export one graph for each image size, the batch size open."
        )
