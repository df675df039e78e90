"""Speed against the dense model, in pairs measured one right after the other."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from tokenred.analysis.measure.context import (
    autocast,
    base_of,
    check_amp,
    check_device,
    check_threads,
    cpu_threads,
    measured,
)
from tokenred.analysis.measure.machine import describe_machine
from tokenred.analysis.measure.timings import Benchmark, Timing, summarise
from tokenred.backbones import adapt
from tokenred.core.api import gmacs
from tokenred.core.errors import ConfigError, InputError, PartError
from tokenred.core.model import ReducedViT, wrap
from tokenred.core.plan import Strategy

__all__ = ["Benchmark", "Candidate", "Timing", "benchmark"]

Candidate = nn.Module | Strategy | str
_FEWEST = 3


def benchmark(
    models: Candidate | Sequence[Candidate] | Mapping[str, Candidate],
    image_shape: Sequence[int] | None = None,
    *,
    dense: nn.Module | None = None,
    batch_size: int = 32,
    pairs: int = 15,
    warmup: int = 2,
    max_seconds: float | None = None,
    threads: int | None = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Benchmark:
    """Time reduced models against their untouched dense model, with its own fused attention.

    On a shared machine the dense model wanders by some percent against itself. So it runs right
    before every run of a candidate, on the same random images; the speed-up is the median over
    such pairs of dense time ÷ candidate time, and its interval comes from a seeded bootstrap over
    the pairs. The candidates take turns, so that a slow minute hits all of them.

    Args:
        models: a `ReducedViT`, a sequence of them, or a mapping from names to them. With
            ``dense``, also strategies and recipes' names, or a plain model, such as the dense one
            itself to see the noise.
        image_shape: ``(channels, height, width)``; None for the model's own.
        dense: the model to compare with; None for each candidate's ``base``.
        batch_size: images in a batch.
        pairs: runs of each candidate, at least 2.
        warmup: pairs before those, not counted.
        max_seconds: begin no further pair after so long, once there are 3 of each candidate.
        threads: CPU threads of PyTorch; None leaves them.
        device: where to run; None for where the model is.
        amp: ``torch.bfloat16`` or ``torch.float16`` for mixed precision.
        seed: of images and bootstrap.
        progress: show a bar on a terminal.

    Raises:
        ConfigError: for numbers out of range, or strategies without ``dense``.
        InputError: for images of a shape that a model refuses.
        PartError: for candidates of another kind.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("pairs", pairs, 2)):
        _check_count(name, value, least)
    _check_count("warmup", warmup, 0)
    check_amp(amp)
    check_threads(threads)
    target = check_device(device)
    todo = _candidates(models, dense)
    bases = {name: base_of(model) if dense is None else dense for name, model in todo.items()}
    shape = _image_shape(next(iter(bases.values())), image_shape)
    images = _images((batch_size, *shape), next(iter(bases.values())), seed)
    for base in bases.values():
        adapt(base).check_images(images)
    costs = {name: _cost(model, bases[name], shape) for name, model in todo.items()}

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in todo}
    with ExitStack() as stack:
        for model in {id(m): m for m in (*bases.values(), *todo.values())}.values():
            place = stack.enter_context(measured(model, target))
        stack.enter_context(cpu_threads(threads))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(autocast(place, amp))
        stack.enter_context(_no_collection())
        bar = stack.enter_context(
            tqdm(total=(warmup + pairs) * len(todo), desc="speed", unit="pair", leave=False,
                 disable=None if progress else True)
        )  # fmt: skip
        images = images.to(place)
        clock = _clock(place)
        deadline = float("inf") if max_seconds is None else time.monotonic() + max_seconds
        for turn in range(warmup + pairs):
            if turn >= warmup + _FEWEST and time.monotonic() > deadline:
                break
            for name, model in todo.items():
                pair = clock(bases[name], images), clock(model, images)
                if turn >= warmup:
                    times[name].append(pair)
                bar.update()
        machine = describe_machine(place)
    return Benchmark(
        timings=tuple(
            summarise(name, np.array(measurements), batch_size, *costs[name], seed=seed)
            for name, measurements in times.items()
        ),
        batch_size=batch_size,
        image_shape=shape,
        precision=str(amp or images.dtype).removeprefix("torch."),
        seed=seed,
        machine=machine,
    )


def _check_count(name: str, value: int, least: int) -> None:
    if type(value) is not int or value < least:
        raise ConfigError(f"expected {name} as a whole number from {least}, got {value!r}.")


def _candidates(
    models: Candidate | Sequence[Candidate] | Mapping[str, Candidate], dense: nn.Module | None
) -> dict[str, nn.Module]:
    if isinstance(models, Mapping):
        named = dict(models)
    else:
        single = isinstance(models, nn.Module | Strategy | str)
        several: Sequence[Any] = [models] if single else list(models)  # type: ignore[arg-type]
        named = {_name(model, at, len(several)): model for at, model in enumerate(several)}
    if not named:
        raise ConfigError("expected at least one model to time, got none.")
    return {name: _candidate(name, model, dense) for name, model in named.items()}


def _name(model: Candidate, at: int, count: int) -> str:
    if isinstance(model, str):
        return model
    return "reduced" if count == 1 else f"{at}"


def _candidate(name: str, model: Candidate, dense: nn.Module | None) -> nn.Module:
    if isinstance(model, Strategy | str):
        if dense is None:
            raise ConfigError(
                f"{name!r} is a strategy, and there is no model to wrap with it. "
                "Pass dense=, or tokenred.wrap(model, strategy)."
            )
        return wrap(dense, model)
    if not isinstance(model, nn.Module):
        raise PartError(f"expected a model or a strategy under {name!r}, got {model!r}.")
    if dense is None and not isinstance(model, ReducedViT):
        raise ConfigError(
            f"{name!r} is a {type(model).__name__}, which has no dense model to compare with. "
            "Wrap it with tokenred.wrap, or pass dense=."
        )
    return model


def _image_shape(model: nn.Module, given: Sequence[int] | None) -> tuple[int, int, int]:
    if given is not None:
        if len(given) != 3 or min(given) < 1:
            raise InputError(
                f"expected image_shape as (channels, height, width), got {tuple(given)}."
            )
        return int(given[0]), int(given[1]), int(given[2])
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "img_size", None)
    channels = getattr(getattr(embed, "proj", None), "in_channels", 3)
    if size is None:
        raise InputError(
            f"{type(model).__name__} does not say which images it takes; "
            "pass image_shape=(channels, height, width)."
        )
    return int(channels), int(size[0]), int(size[1])


def _cost(model: nn.Module, base: nn.Module, shape: tuple[int, int, int]) -> tuple[float, float]:
    """GMACs of the candidate and of the dense model."""
    own = gmacs(base, shape)
    return (own if model is base else gmacs(model, shape)), own


def _images(shape: tuple[int, ...], model: nn.Module, seed: int) -> Tensor:
    weight = next(model.parameters(), None)
    dtype = torch.float32 if weight is None else weight.dtype
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype)


def _clock(device: torch.device) -> Callable[[nn.Module, Tensor], float]:
    """Seconds of one forward, the device's queue empty before and after."""
    if device.type == "cuda":
        return _cuda_seconds

    def wait() -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    def seconds(model: nn.Module, images: Tensor) -> float:
        wait()
        start = time.perf_counter()
        model(images)
        wait()
        return time.perf_counter() - start

    return seconds


def _cuda_seconds(model: nn.Module, images: Tensor) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(images.device)
    begin.record()
    model(images)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection in the middle of a run."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
