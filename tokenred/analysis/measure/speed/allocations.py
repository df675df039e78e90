"""Memory that a call takes: PyTorch's allocations, and what the operating system saw."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tokenred.core.errors import ConfigError

__all__ = ["ResidentWatch", "allocation_peak"]

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def allocation_peak(run: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """The most bytes that PyTorch's allocations hold during a call, above what they held before.

    Args:
        run: what to look at; its result lives to the end.
        device: whose allocations count.

    Raises:
        ConfigError: for a device whose allocations are not counted.
    """
    device = torch.device(device)
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"expected cpu or cuda to count allocations on, got {device}.")
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - held)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        result = run()
    del result
    return _peak_of(profile)


def _peak_of(profile: Any) -> int:
    """Walk the profiler's memory events in their order; a negative one is a release."""
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    ours = [e for e in events if e.device_type().name == "CPU"]
    held = peak = 0
    for event in sorted(ours, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


class ResidentWatch:
    """Growth of this process's resident memory from ``start`` to its peak before ``stop``.

    Linux only: elsewhere, and where the high-water mark cannot be reset, ``growth`` stays None.
    """

    def __init__(self) -> None:
        self.growth: int | None = None
        self._before: int | None = None

    def start(self) -> None:
        """Begin to watch."""
        gc.collect()
        try:
            _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
            self._before = _read("VmRSS")
        except OSError:
            self._before = None

    def stop(self) -> None:
        """Note the growth."""
        if self._before is not None:
            self.growth = max(0, _read("VmHWM") - self._before)


def _read(field: str) -> int:
    """Bytes in a field of the process's status."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in {_STATUS}")
