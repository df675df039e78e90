"""Where a training runs: one device as it is, or Hugging Face accelerate for AMP and many."""

from __future__ import annotations

import importlib
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tokenred.core.errors import ConfigError, MissingExtraError

__all__ = ["Accelerated", "OneDevice", "pick_device"]


class OneDevice:
    """One process, one device, full precision."""

    rank, count = 0, 1

    def __init__(self, device: str | None) -> None:
        try:
            self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"expected a device of this machine, got {device!r}: {error}") from (
                error
            )

    def prepare(self, module: nn.Module, optimizer: Any) -> tuple[nn.Module, Any]:
        """The module and optimiser to train with."""
        return module, optimizer

    def autocast(self) -> AbstractContextManager[Any]:
        """For forwards of models that are not prepared, such as a teacher."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss."""
        loss.backward()

    def clip(self, parameters: list[nn.Parameter], norm: float) -> None:
        """Bound the gradient's norm."""
        nn.utils.clip_grad_norm_(parameters, norm)

    def total(self, values: Tensor) -> Tensor:
        """The sum over processes."""
        return values

    def wait(self) -> None:
        """Until all processes are here."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""


class Accelerated(OneDevice):
    """As ``accelerate launch`` started it: any number of processes, mixed precision.

    Args:
        amp: ``"no"``, ``"bf16"`` or ``"fp16"``.
        device: ``"cpu"``, or None for accelerate's choice.

    Raises:
        MissingExtraError: without accelerate.
    """

    def __init__(self, amp: str, device: str | None) -> None:
        try:
            accelerate: Any = importlib.import_module("accelerate")
        except ImportError as error:
            raise MissingExtraError(
                "mixed precision and several processes need accelerate: "
                "pip install 'tokenred[train]'; or train with amp='no' in one process."
            ) from error
        # Predictors have no gradient while nothing is removed.
        unused = accelerate.DistributedDataParallelKwargs(find_unused_parameters=True)
        self._accelerator: Any = accelerate.Accelerator(
            mixed_precision=amp, cpu=device == "cpu", kwargs_handlers=[unused]
        )
        self.device = self._accelerator.device
        self.rank = self._accelerator.process_index
        self.count = self._accelerator.num_processes

    def prepare(self, module: nn.Module, optimizer: Any) -> tuple[nn.Module, Any]:
        prepared: tuple[nn.Module, Any] = self._accelerator.prepare(module, optimizer)
        return prepared

    def autocast(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self._accelerator.autocast()
        return context

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)

    def clip(self, parameters: list[nn.Parameter], norm: float) -> None:
        self._accelerator.clip_grad_norm_(parameters, norm)

    def total(self, values: Tensor) -> Tensor:
        summed: Tensor = self._accelerator.reduce(values, "sum")
        return summed

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()

    def state_dict(self) -> dict[str, Any]:
        scaler = self._accelerator.scaler
        return {} if scaler is None else {"scaler": scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "scaler" in state and self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(state["scaler"])


def pick_device(amp: str, device: str | None) -> OneDevice:
    """Accelerate where it is needed, and nothing where it is not."""
    if amp == "no" and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return OneDevice(device)
    return Accelerated(amp, device)
