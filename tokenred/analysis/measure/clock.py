"""Clocks, and what is timed: models in eval mode on random images, eager or compiled."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tokenred.analysis.measure.candidates import image_shape_of
from tokenred.analysis.measure.machine import running, weight_type
from tokenred.backbones import adapt
from tokenred.core.errors import ConfigError

__all__ = ["Clock", "Compile", "no_collection", "on_random_images", "runnable"]

Runs = Callable[[Tensor], object]
Compile = bool | Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""Whether to compile, or the mode of ``torch.compile``."""

_RUNS = 3  # compiled at the first, CUDA graphs recorded at the second
_LIMIT = 1024


class Clock:
    """Points in time, and the seconds between them.

    On CUDA a mark is an event in the device's stream, which does not block; other accelerators are
    synchronised.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events = device.type == "cuda"

    def __call__(self, run: Runs, images: Tensor) -> float:
        """Seconds of one forward, from an idle device on."""
        self._wait()
        begin = self.mark()
        run(images)
        return self.seconds(begin, self.mark())

    def mark(self) -> Any:
        """Now."""
        if not self._events:
            self._wait()
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        # The device may differ from the current one.
        event.record(torch.cuda.current_stream(self._device))
        return event

    def seconds(self, begin: Any, end: Any) -> float:
        """Seconds from one mark to another; waits until both have passed."""
        if not self._events:
            return float(end - begin)
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def _wait(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)


@contextmanager
def no_collection() -> Iterator[None]:
    """Disable garbage collection during a run."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def on_random_images(
    models: Iterable[nn.Module],
    bases: Sequence[nn.Module],
    image_shape: Sequence[int] | None,
    batch_size: int,
    *,
    threads: int | None,
    device: str | torch.device | None,
    amp: torch.dtype | None,
    seed: int,
) -> Iterator[Tensor]:
    """Models in eval and inference mode on a device, and a batch of random images there.

    Args:
        models: which run; they are restored.
        bases: the dense models behind them, which say whether they take such images.
        image_shape: ``(channels, height, width)``; None for that of the first base.
        batch_size, threads, device, amp, seed: see `tokenred.analysis.benchmark`.
    """
    shape = image_shape_of(bases[0], image_shape)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn((batch_size, *shape), generator=generator).to(weight_type(bases[0]))
    for base in bases:
        adapt(base).check_images(images)
    with (
        running(models, device, amp=amp, threads=threads, inference=True) as place,
        no_collection(),
    ):
        yield images.to(place)


@contextmanager
def runnable(
    models: Mapping[int, nn.Module], mode: bool | str, images: Tensor
) -> Iterator[dict[int, Runs]]:
    """The models to time, by any key: unchanged, or compiled as full graphs with fixed shapes.

    Args:
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
