"""Peak memory of a forward, in a process of its own where nothing else counts."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokenred.analysis.measure.context import (
    autocast,
    base_of,
    check_amp,
    check_device,
    check_threads,
    cpu_threads,
    measured,
)
from tokenred.analysis.measure.speed.allocations import ResidentWatch, allocation_peak
from tokenred.analysis.measure.speed.candidates import check_count, image_shape_of, make_images
from tokenred.analysis.measure.speed.fresh_process import can_travel, run_fresh
from tokenred.backbones import adapt
from tokenred.core.errors import ConfigError
from tokenred.strategies.config import to_config
from tokenred.strategies.specs import StrategyLike, parse_spec

__all__ = ["PeakMemory", "measure_here", "peak_memory"]


@dataclass(frozen=True)
class PeakMemory:
    """The most that one forward holds at a time.

    Attributes:
        peak_bytes: of PyTorch's allocations during the forward; weights and images were there
            before and do not count. What kernels take elsewhere (NumPy buffers, the packing
            buffers of MKL and oneDNN) is not seen.
        resident_bytes: growth of the process's resident memory in the same forward, by the
            operating system's high-water mark: all of that is in it, and what libraries load and
            keep as well. None outside Linux, on accelerators, and in the caller's own process.
        batch_size, image_shape, precision, device: what ran.
        own_process: whether in a fresh interpreter.
    """

    peak_bytes: int
    resident_bytes: int | None
    batch_size: int
    image_shape: tuple[int, int, int]
    precision: str
    device: str
    own_process: bool

    @property
    def peak_mib(self) -> float:
        """``peak_bytes`` in MiB."""
        return self.peak_bytes / 2**20

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PeakMemory:
        """What `to_dict` gave."""
        return cls(**{**values, "image_shape": tuple(values["image_shape"])})

    def __str__(self) -> str:
        resident = ""
        if self.resident_bytes is not None:
            resident = f" (resident memory grew by {self.resident_bytes / 2**20:.1f} MiB)"
        return (
            f"{self.peak_mib:.1f} MiB at the peak{resident}; batch {self.batch_size}, images "
            f"{'x'.join(map(str, self.image_shape))}, {self.precision}, {self.device}"
        )


def peak_memory(
    model: nn.Module | str | Path,
    image_shape: Sequence[int] | None = None,
    batch_size: int = 32,
    *,
    strategy: StrategyLike | None = None,
    threads: int | None = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    timeout: float | None = None,
) -> PeakMemory:
    """The peak of allocations during a forward in inference mode.

    A model named by text runs in a fresh interpreter, so that nothing else counts, and for the
    first time, so that what it keeps for later forwards does; a model that exists only in memory
    runs here. On CUDA the caching allocator's own count is read, on the CPU PyTorch's profiler is.

    Args:
        model: a name or path for `tokenred.models.load_model` (timm's models get random weights:
            memory does not hang on them), or a model, dense or a `ReducedViT`.
        image_shape: ``(channels, height, width)``; None for the model's own.
        batch_size: images in a batch.
        strategy: to wrap a named model with, as for `tokenred.wrap`; None for the dense model.
        threads: CPU threads of PyTorch; None leaves them.
        device: where to run; None for the CPU, or for where the model is.
        amp: ``torch.bfloat16`` or ``torch.float16`` for mixed precision.
        dtype: of the weights and images of a named model.
        seed: of the images, and of random weights.
        timeout: seconds to wait for the fresh interpreter.

    Raises:
        ConfigError: for numbers out of range, or a strategy that a fresh interpreter cannot know.
        InputError: for images of a shape that the model refuses.
        MemoryError: where the memory does not suffice.
        TimeoutError: where the fresh interpreter takes longer.
    """
    check_count("batch_size", batch_size, 1)
    check_amp(amp)
    check_threads(threads)
    target = check_device(device)
    if isinstance(model, nn.Module):
        if strategy is not None:
            raise ConfigError("strategy= belongs to a named model; wrap this one yourself.")
        return measure_here(
            model,
            image_shape,
            batch_size,
            threads=threads,
            device=target,
            amp=amp,
            seed=seed,
            own_process=False,
        )
    spec = None if strategy is None else parse_spec(strategy)
    if spec is not None and not can_travel(spec.strategy):
        raise ConfigError(
            "a fresh interpreter does not know parts that were defined outside of tokenred; "
            "pass the model itself, tokenred.wrap(model, strategy), to measure in this process."
        )
    job = {
        "model": os.fspath(model),
        "strategy": None if spec is None else to_config(spec.strategy),
        "share": None if spec is None else spec.share,
        "image_shape": None if image_shape is None else list(image_shape),
        "batch_size": batch_size,
        "threads": threads,
        "device": str(target or "cpu"),
        "amp": None if amp is None else str(amp).removeprefix("torch."),
        "dtype": str(dtype).removeprefix("torch."),
        "seed": seed,
    }
    return PeakMemory.from_dict(run_fresh(job, timeout))


def measure_here(
    model: nn.Module,
    image_shape: Sequence[int] | None,
    batch_size: int,
    *,
    threads: int | None,
    device: torch.device | None,
    amp: torch.dtype | None,
    seed: int,
    own_process: bool,
) -> PeakMemory:
    """`peak_memory` in this process; ``own_process`` where there is nothing else in it."""
    base = base_of(model)
    shape = image_shape_of(base, image_shape)
    images = make_images((batch_size, *shape), base, seed)
    adapt(base).check_images(images)
    watch = ResidentWatch()

    def forward() -> object:
        if own_process and place.type == "cpu":
            watch.start()
        out = model(images)
        watch.stop()
        return out

    with ExitStack() as stack:
        place = stack.enter_context(measured(model, device))
        stack.enter_context(cpu_threads(threads))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(autocast(place, amp))
        images = images.to(place)
        peak = allocation_peak(forward, place)
    return PeakMemory(
        peak_bytes=peak,
        resident_bytes=watch.growth,
        batch_size=batch_size,
        image_shape=shape,
        precision=str(amp or images.dtype).removeprefix("torch."),
        device=str(place),
        own_process=own_process,
    )
