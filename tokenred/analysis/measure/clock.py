"""Clocks, and preparing models for timing, eager or compiled."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tokenred.core.errors import ConfigError

__all__ = ["Clock", "Compile", "Marker", "make_clock", "no_collection", "runnable"]

Runs = Callable[[Tensor], object]
Clock = Callable[[Runs, Tensor], float]
Compile = bool | Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""Whether to compile, or the mode of ``torch.compile``."""

_RUNS = 3  # compiled at the first, CUDA graphs recorded at the second
_LIMIT = 1024


def make_clock(device: torch.device) -> Clock:
    """Seconds of one forward, with the device synchronised before and after."""
    if device.type == "cuda":
        return _cuda_seconds

    def seconds(model: Runs, images: Tensor) -> float:
        _wait(device)
        start = time.perf_counter()
        model(images)
        _wait(device)
        return time.perf_counter() - start

    return seconds


def _cuda_seconds(model: Runs, images: Tensor) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(images.device)
    # The device of the images may differ from the current one.
    stream = torch.cuda.current_stream(images.device)
    begin.record(stream)
    model(images)
    end.record(stream)
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


class Marker:
    """Points in time inside a forward, and the seconds between them.

    On CUDA a mark is an event in the stream, which does not block; other accelerators are
    synchronised.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events = device.type == "cuda"

    def mark(self) -> Any:
        """Now."""
        if self._events:
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            return event
        _wait(self._device)
        return time.perf_counter()

    def settle(self) -> None:
        """Wait until all marks have passed; call it before `seconds`."""
        if self._events:
            torch.cuda.synchronize(self._device)

    def seconds(self, begin: Any, end: Any) -> float:
        """Seconds from one mark to another."""
        return float(begin.elapsed_time(end)) / 1e3 if self._events else float(end - begin)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def no_collection() -> Iterator[None]:
    """Disable garbage collection during a run."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def runnable(
    models: Mapping[int, nn.Module], mode: bool | str, images: Tensor
) -> Iterator[dict[int, Runs]]:
    """The models to time, unchanged or compiled as full graphs with fixed shapes.

    Args:
        models: by any key.
        mode: see `Compile`.
        images: their input; compiled models have already run on it.

    Raises:
        ConfigError: if a model cannot be compiled.
    """
    if mode is False:
        yield dict(models)
        return
    name = None if mode is True else str(mode)
    # All wrapped models share their code, and dynamo counts compilations per code object: its
    # limit of 8 would refuse the ninth candidate.
    with torch._dynamo.config.patch(recompile_limit=_LIMIT, accumulated_recompile_limit=_LIMIT):
        runs = {
            key: _step(torch.compile(model, fullgraph=True, dynamic=False, mode=name))
            for key, model in models.items()
        }
        try:
            for run in runs.values():
                for _ in range(_RUNS):
                    run(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().splitlines()
            raise ConfigError(
                f"torch.compile failed ({type(error).__name__}: {reason[0] if reason else ''}); "
                "omit compile, or fix the compiler that it needs."
            ) from error
        yield runs


def _step(model: Runs) -> Runs:
    def run(images: Tensor) -> object:
        # Models take turns; each run is a step of its own for CUDA graphs.
        torch.compiler.cudagraph_mark_step_begin()
        return model(images)

    return run
