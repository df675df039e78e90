"""Clocks: seconds of a forward, and marks inside one."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["Clock", "Marker", "make_clock", "no_collection"]

Clock = Callable[[Callable[[Tensor], object], Tensor], float]


def make_clock(device: torch.device) -> Clock:
    """Seconds of one forward, the device's queue empty before and after."""
    if device.type == "cuda":
        return _cuda_seconds

    def seconds(model: Callable[[Tensor], object], images: Tensor) -> float:
        _wait(device)
        start = time.perf_counter()
        model(images)
        _wait(device)
        return time.perf_counter() - start

    return seconds


def _cuda_seconds(model: Callable[[Tensor], object], images: Tensor) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(images.device)
    # The images' device need not be the current one.
    stream = torch.cuda.current_stream(images.device)
    begin.record(stream)
    model(images)
    end.record(stream)
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


class Marker:
    """Points in time inside a forward, and the seconds between two of them.

    On CUDA a mark is an event in the stream, which holds nothing up; on other accelerators it waits
    for the device.
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
        """From one mark to another."""
        return float(begin.elapsed_time(end)) / 1e3 if self._events else float(end - begin)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection in the middle of a run."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
