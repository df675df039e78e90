"""A model in eval mode, on a device, for the length of a block; afterwards as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from tokenred.analysis.measure.machine import model_device
from tokenred.core.errors import ConfigError
from tokenred.reduced.model import ReducedViT

__all__ = [
    "autocast",
    "base_of",
    "channels_last",
    "check_amp",
    "check_device",
    "check_threads",
    "cpu_threads",
    "measured",
]


def base_of(model: nn.Module) -> nn.Module:
    """The untouched model under a `ReducedViT`; any other model itself.

    Of a baseline that is a changed copy, the model that it stands in for.
    """
    if not isinstance(model, ReducedViT):
        return model
    base = getattr(model, "stands_for", model.base)
    assert isinstance(base, nn.Module)
    return base


def check_device(device: str | torch.device | None) -> torch.device | None:
    """A device that is there.

    Raises:
        ConfigError: for a name that PyTorch does not know, or a device that this machine lacks.
    """
    if device is None:
        return None
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"expected a device of this machine, got {str(device)!r} ({reason}); "
            "leave it out for the model's own."
        ) from error
    return chosen


@contextmanager
def measured(model: nn.Module, device: torch.device | None) -> Iterator[torch.device]:
    """Eval mode, on ``device`` (None: where it is); restores both, submodule by submodule."""
    # A ReducedViT holds its base's children, but not the base itself.
    own = model.base if isinstance(model, ReducedViT) else model
    modules = list(dict.fromkeys([*own.modules(), *model.modules()]))
    modes = [module.training for module in modules]
    home = model_device(model)
    places = _places(modules)
    target = home if device is None else device
    try:
        model.to(target)
        model.eval()
        yield target
    finally:
        model.to(home)
        _put_back(places)
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _places(modules: list[nn.Module]) -> list[tuple[nn.Module, str, torch.device]]:
    """Where each parameter and buffer is.

    A baseline shares most weights with the model it stands in for. Where that one was moved just
    before, the shared ones are on the device already, and the others are not.
    """
    return [
        (module, name, tensor.device)
        for module in modules
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    ]


def _put_back(places: list[tuple[nn.Module, str, torch.device]]) -> None:
    for module, name, device in places:
        tensor = getattr(module, name)
        if tensor.device != device:
            tensor.data = tensor.data.to(device)


@contextmanager
def channels_last(models: Iterable[nn.Module], wanted: bool = True) -> Iterator[None]:
    """The weights of convolutions as NHWC in memory; afterwards the very tensors of before."""
    before: dict[nn.Parameter, Tensor] = {}
    if wanted:
        for model in models:
            for weight in model.parameters():
                if weight.ndim == 4 and weight not in before:
                    before[weight] = weight.data
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    try:
        yield
    finally:
        for weight, data in before.items():
            weight.data = data


def check_amp(amp: torch.dtype | None) -> None:
    """Refuse a precision that mixed precision does not know.

    Raises:
        ConfigError: for another type than bfloat16 and float16.
    """
    if amp not in (None, torch.bfloat16, torch.float16):
        raise ConfigError(f"expected amp as torch.bfloat16 or torch.float16, got {amp!r}.")


def autocast(device: torch.device, amp: torch.dtype | None) -> AbstractContextManager[object]:
    """Mixed precision in ``amp``, or nothing."""
    return nullcontext() if amp is None else torch.autocast(device.type, dtype=amp)


def check_threads(count: int | None) -> None:
    """Refuse a number of threads that is none.

    Raises:
        ConfigError: unless it is None or a whole number from 1.
    """
    if count is not None and (type(count) is not int or count < 1):
        raise ConfigError(f"expected threads as a whole number from 1, got {count!r}.")


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """PyTorch on so many CPU threads; None leaves them. Afterwards as before."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)
