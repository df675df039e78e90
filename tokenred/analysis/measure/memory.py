"""Peak memory of a forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from tokenred.analysis.measure.machine import base_of
from tokenred.analysis.measure.timing import on_random_images
from tokenred.core.errors import ConfigError
from tokenred.core.values import Count, Size, checked


@checked
def peak_memory(
    model: nn.Module,
    image_shape: Sequence[int] | None = None,
    batch_size: Size = 32,
    *,
    threads: Size | None = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    seed: Count = 0,
) -> int:
    """The bytes that PyTorch allocates at the peak of a forward, in inference mode.

    Weights and images are not included, nor are other buffers of kernels (NumPy, packing buffers of
    MKL and oneDNN). The number is the caching allocator's on CUDA, and the profiler's on the CPU.

    Args:
        model: dense, or a `ReducedViT`.
        image_shape: ``(channels, height, width)``; None for the model's own.
        batch_size, threads, device, amp: as in `tokenred.analysis.benchmark`.
        seed: seed of the images.

    Raises:
        ConfigError: if a number is out of range, or the device's allocations cannot be counted.
        InputError: if the model refuses the image shape.
    """
    with on_random_images(
        [model], [base_of(model)], image_shape, batch_size, threads=threads, device=device, amp=amp,
        seed=seed,
    ) as images:  # fmt: skip
        return allocation_peak(lambda: model(images), images.device)


def allocation_peak(run: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """The peak of PyTorch's allocations during a call, above the level before."""
    device = torch.device(device)
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"expected cpu or cuda to count allocations on, got {device}.")
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        result = run()
    del result
    # The profiler's memory events in their order; a negative one is a release.
    kineto: Any = profile.profiler
    events = [e for e in kineto.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.device_type().name == "CPU":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
