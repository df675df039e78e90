"""What a result depends on besides the strategy: machine, versions, weights."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from tokenred._version import __version__
from tokenred.models.fit import state_digest

__all__ = ["describe_machine", "model_device", "weights_digest"]


def describe_machine(device: torch.device | str = "cpu") -> dict[str, str | int]:
    """The machine and the versions that a measurement hangs on.

    Args:
        device: where the model runs.

    Returns:
        ``device``, ``processor`` (the GPU's name, or the CPU's), ``cores`` (usable), ``threads``
        (PyTorch's), ``platform``, and the versions ``tokenred``, ``torch``, ``timm``, ``python``.
    """
    device = torch.device(device)
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "device": str(device),
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu(),
        "cores": len(affinity(0)) if affinity else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "timm": version("timm"),
        "tokenred": __version__,
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine() or "unknown"


def model_device(model: nn.Module) -> torch.device:
    """Where a model's weights are; the CPU for one without weights."""
    weight = next(model.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device


def weights_digest(model: nn.Module) -> str:
    """16 hex digits of SHA-256 over names, types, shapes and values of a model's state."""
    return state_digest(model.state_dict())
