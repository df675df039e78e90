"""Where training runs: on one device, or through accelerate for AMP and several processes."""

from __future__ import annotations

import importlib
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tokenred.core.errors import ConfigError, MissingExtraError

__all__ = ["OneDevice", "pick_accelerator"]


class OneDevice:
    """The part of ``accelerate.Accelerator`` that training uses, for one process in full precision.

    Raises:
        ConfigError: if this machine does not have the device.
    """

    process_index, num_processes = 0, 1
    scaler = None

    def __init__(self, device: str | None) -> None:
        try:
            self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"expected a device of this machine, got {device!r}: {error}"
            ) from error

    def prepare(self, module: nn.Module, optimizer: Any) -> tuple[nn.Module, Any]:
        """The module and optimiser to train with."""
        return module, optimizer

    def autocast(self) -> AbstractContextManager[Any]:
        """A context for the forward of an unprepared model, such as a teacher."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss."""
        loss.backward()

    def clip_grad_norm_(self, parameters: list[nn.Parameter], norm: float) -> None:
        """Clip the norm of the gradient."""
        nn.utils.clip_grad_norm_(parameters, norm)

    def reduce(self, values: Tensor, how: str) -> Tensor:
        """The sum over processes."""
        return values

    def wait_for_everyone(self) -> None:
        """Wait for all processes."""


def pick_accelerator(amp: str, device: str | None) -> Any:
    """Return an ``Accelerator`` if one is needed, otherwise a `OneDevice`.

    Args:
        amp: ``"no"``, ``"bf16"`` or ``"fp16"``.
        device: for `OneDevice`; ``"cpu"``, or None for accelerate's choice.

    Raises:
        ConfigError: if this machine does not have the device.
        MissingExtraError: if accelerate is needed but not installed.
    """
    if amp == "no" and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return OneDevice(device)
    try:
        accelerate: Any = importlib.import_module("accelerate")
    except ImportError as error:
        raise MissingExtraError(
            "mixed precision and several processes need accelerate: "
            "pip install 'tokenred[train]'; or train with amp='no' in one process."
        ) from error
    # Predictors have no gradient while nothing is removed.
    unused = accelerate.DistributedDataParallelKwargs(find_unused_parameters=True)
    return accelerate.Accelerator(
        mixed_precision=amp, cpu=device == "cpu", kwargs_handlers=[unused]
    )
