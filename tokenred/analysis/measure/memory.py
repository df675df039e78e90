"""Peak memory of a forward, measured in a separate process.

The fresh interpreter runs `main` of this module: a job comes in, the answer goes out.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from torch import nn

from tokenred.analysis.measure.machine import (
    autocast,
    base_of,
    check_device,
    is_out_of_memory,
    precision_of,
)
from tokenred.analysis.measure.timing import build_model, image_shape_of, on_random_images
from tokenred.core.child import python_running
from tokenred.core.errors import ConfigError, TokenredError
from tokenred.core.values import Count, Size, checked
from tokenred.reduced.wrap import wrap
from tokenred.strategies.specs import StrategyLike, parse_spec

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True)
class PeakMemory:
    """The peak memory of one forward.

    Attributes:
        peak_bytes: peak of PyTorch's allocations during the forward, without weights and images.
            Other buffers of kernels (NumPy, packing buffers of MKL and oneDNN) are not included.
        resident_bytes: growth of the process's resident memory in the same forward, from the
            operating system's high-water mark. It includes everything, even what libraries load and
            keep. None outside Linux, on accelerators, and in the caller's own process.
        batch_size, image_shape, precision, device: the settings.
        own_process: whether it was measured in a fresh interpreter.
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

    def __str__(self) -> str:
        resident = ""
        if self.resident_bytes is not None:
            resident = f" (resident memory grew by {self.resident_bytes / 2**20:.1f} MiB)"
        return (
            f"{self.peak_mib:.1f} MiB at the peak{resident}; batch {self.batch_size}, images "
            f"{'x'.join(map(str, self.image_shape))}, {self.precision}, {self.device}"
        )


@checked
def peak_memory(
    model: nn.Module | str | Path,
    image_shape: Sequence[int] | None = None,
    batch_size: Size = 32,
    *,
    strategy: StrategyLike | None = None,
    threads: Size | None = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    dtype: torch.dtype = torch.float32,
    seed: Count = 0,
    timeout: float | None = None,
) -> PeakMemory:
    """Measure the peak of allocations during a forward in inference mode.

    A model given by name runs in a fresh interpreter, so that nothing else counts, and for the
    first time, so that what it caches for later forwards does; a model in memory runs in this
    process. The numbers come from the caching allocator on CUDA, and from PyTorch's profiler on the
    CPU.

    Args:
        model: a name or path for `tokenred.models.load_model` (timm's models get random weights:
            memory does not depend on them), or a model, dense or a `ReducedViT`.
        image_shape: ``(channels, height, width)``; None for the model's own.
        batch_size, threads, amp: as in `tokenred.analysis.benchmark`.
        strategy: strategy for a named model, as for `tokenred.wrap`; None for the dense model.
        device: where to run; None for the CPU, or the model's own device.
        dtype: dtype of the weights and images of a named model.
        seed: seed of images and random weights.
        timeout: seconds to wait for the fresh interpreter.

    Raises:
        ConfigError: if a number is out of range, or the strategy has parts that cannot be sent to a
            fresh interpreter.
        InputError: if the model refuses the image shape.
        MemoryError: if there is not enough memory.
        TimeoutError: if the fresh interpreter takes longer.
    """
    options: dict[str, Any] = {
        "image_shape": image_shape, "batch_size": batch_size, "threads": threads, "amp": amp,
        "seed": seed,
    }  # fmt: skip
    if isinstance(model, nn.Module):
        if strategy is not None:
            raise ConfigError("strategy= needs a model given by name; wrap this one yourself.")
        return _measure(model, device=device, **options)
    place = check_device(device or "cpu") or torch.device("cpu")
    autocast(place, amp)  # refuses a precision before anything is started
    spec = None if strategy is None else parse_spec(strategy)
    job = (model, spec, dtype, {**options, "device": place})
    return _run_fresh(_sent(cloudpickle.dumps, job), timeout)


def _run_fresh(job: bytes, timeout: float | None) -> PeakMemory:
    """The answer of a fresh interpreter; its errors are raised here."""
    try:
        done = subprocess.run(
            python_running(__name__), input=job, capture_output=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"the fresh interpreter took longer than {timeout:g} s.") from None
    if done.returncode < 0:
        raise MemoryError(
            f"the fresh interpreter was killed by signal {-done.returncode}, most likely because "
            "memory ran out; choose a smaller batch."
        )
    if done.returncode or not done.stdout:
        why = (done.stderr.decode(errors="replace").strip().splitlines() or ["no output"])[-1]
        raise RuntimeError(f"the fresh interpreter failed: {why}")
    answer: PeakMemory | Exception = pickle.loads(done.stdout)
    if isinstance(answer, Exception):
        raise answer
    return answer


def _sent(pack: Callable[[Any], Any], job: Any) -> Any:
    """A job as bytes, or back: neither works with every user-defined part."""
    try:
        return pack(job)
    except (pickle.PicklingError, TypeError, AttributeError, ImportError) as error:
        raise ConfigError(
            f"the strategy cannot be sent to a fresh interpreter ({error}); pass the model itself, "
            "tokenred.wrap(model, strategy), to measure in this process."
        ) from error


def main() -> None:
    """Read a job of `peak_memory` from standard input, write its answer to standard output."""
    answer: PeakMemory | Exception
    # What libraries print is no part of the answer.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            name, strategy, dtype, options = _sent(pickle.loads, sys.stdin.buffer.read())
            shape = options["image_shape"]
            size = None if shape is None else (shape[1], shape[2])
            model = build_model(name, size, dtype, options["seed"])
            model = model if strategy is None else wrap(model, strategy)
            answer = _measure(model, own_process=True, **options)
        except TokenredError as error:
            answer = error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            answer = MemoryError(str(error).partition("\n")[0])
    sys.stdout.buffer.write(pickle.dumps(answer))


def _measure(
    model: nn.Module,
    *,
    image_shape: Sequence[int] | None,
    batch_size: int,
    amp: torch.dtype | None,
    own_process: bool = False,
    **options: Any,
) -> PeakMemory:
    """`peak_memory` in this process; ``own_process`` if nothing else runs in it."""
    base, resident = base_of(model), None
    with on_random_images([model], [base], image_shape, batch_size, amp=amp, **options) as images:

        def forward() -> object:
            nonlocal resident
            alone = own_process and images.device.type == "cpu"
            before = _reset_resident() if alone else None
            out = model(images)
            if before is not None:
                resident = max(0, _status("VmHWM") - before)
            return out

        peak = allocation_peak(forward, images.device)
        shape, precision = image_shape_of(base, images.shape[1:]), precision_of(images, amp)
    place = str(images.device)
    return PeakMemory(peak, resident, batch_size, shape, precision, place, own_process)


def allocation_peak(run: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """The peak of PyTorch's allocations during a call, above the level before.

    Args:
        run: the call; its result is kept until the end.
        device: whose allocations count.

    Raises:
        ConfigError: if allocations on the device cannot be counted.
    """
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


def _reset_resident() -> int | None:
    """Resident bytes now, after resetting the high-water mark; None if that is not possible."""
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
        return _status("VmRSS")
    except OSError:  # not Linux, or not allowed
        return None


def _status(field: str) -> int:
    """Bytes in a field of the process's status."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in {_STATUS}")
