"""Speed against the dense model, in pairs measured one right after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
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
from tokenred.analysis.measure.speed.adaptive import adaptive_cost, is_adaptive
from tokenred.analysis.measure.speed.candidates import (
    Candidate,
    check_count,
    image_shape_of,
    make_images,
    named_candidates,
)
from tokenred.analysis.measure.speed.clock import make_clock, no_collection
from tokenred.analysis.measure.speed.compiled import check_compile, runnable, settle
from tokenred.analysis.measure.speed.memory import peak_memory
from tokenred.analysis.measure.speed.split import time_split
from tokenred.analysis.measure.speed.timings import Benchmark, Timing, summarise
from tokenred.backbones import adapt
from tokenred.reduced.api import dense as nothing_removed
from tokenred.reduced.model import ReducedViT

__all__ = ["Benchmark", "Candidate", "Timing", "benchmark"]

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
    compile: bool | str = False,
    memory: bool = False,
    split: bool = False,
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
        compile: compile dense model and candidates, as whole graphs of fixed shapes, before the
            warm-up: True, or a mode of ``torch.compile``.
        memory: measure the peak of allocations as well, here in this process; see
            `tokenred.analysis.peak_memory` for one of its own.
        split: split the candidates' time as well, uncompiled; see `tokenred.analysis.time_split`.
        seed: of images and bootstrap.
        progress: show a bar on a terminal.

    Raises:
        ConfigError: for numbers out of range, strategies without ``dense``, or a model that
            cannot be compiled.
        InputError: for images of a shape that a model refuses.
        PartError: for candidates of another kind.
    """
    check_count("batch_size", batch_size, 1)
    check_count("pairs", pairs, 2)
    check_count("warmup", warmup, 0)
    check_amp(amp)
    check_threads(threads)
    check_compile(compile)
    target = check_device(device)
    todo = named_candidates(models, dense)
    bases = {name: base_of(model) if dense is None else dense for name, model in todo.items()}
    shape = image_shape_of(next(iter(bases.values())), image_shape)
    images = make_images((batch_size, *shape), next(iter(bases.values())), seed)
    for base in bases.values():
        adapt(base).check_images(images)
    costs = {name: (_gmacs(todo[name], images), _gmacs(bases[name], images)) for name in todo}
    distinct = {id(model): model for model in (*bases.values(), *todo.values())}

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in todo}
    with ExitStack() as stack:
        for model in distinct.values():
            place = stack.enter_context(measured(model, target))
        stack.enter_context(cpu_threads(threads))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(autocast(place, amp))
        stack.enter_context(no_collection())
        bar = stack.enter_context(
            tqdm(total=(warmup + pairs) * len(todo), desc="speed", unit="pair", leave=False,
                 disable=None if progress else True)
        )  # fmt: skip
        images = images.to(place)
        runs = stack.enter_context(runnable(distinct, compile))
        if compile:
            settle(runs, images)
        clock = make_clock(place)
        deadline = float("inf") if max_seconds is None else time.monotonic() + max_seconds
        for turn in range(warmup + pairs):
            if turn >= warmup + _FEWEST and time.monotonic() > deadline:
                break
            for name, model in todo.items():
                reference, own = runs[id(bases[name])], runs[id(model)]
                pair = clock(reference, images), clock(own, images)
                if turn >= warmup:
                    times[name].append(pair)
                bar.update()
        machine = describe_machine(place)
    timings = []
    for name, measurements in times.items():
        (cost, overhead), (whole, _) = costs[name]
        timings.append(
            summarise(
                name,
                np.array(measurements),
                batch_size,
                cost,
                whole,
                overhead_gmacs=overhead,
                seed=seed,
            )
        )
    if memory or split:
        options = {"threads": threads, "device": target, "amp": amp, "seed": seed}
        timings = [
            _look_closer(timing, todo[timing.name], bases[timing.name], memory=memory, split=split,
                         image_shape=shape, options=options, progress=progress)
            for timing in timings
        ]  # fmt: skip
    return Benchmark(
        timings=tuple(timings),
        batch_size=batch_size,
        image_shape=shape,
        precision=str(amp or images.dtype).removeprefix("torch."),
        seed=seed,
        machine=machine,
        compile=compile,
    )


def _gmacs(model: nn.Module, images: Tensor) -> tuple[float, float]:
    """Cost and overhead of an image; the mean where the images decide how many tokens go."""
    reduced = model if isinstance(model, ReducedViT) else nothing_removed(model)
    if is_adaptive(reduced):
        counted = adaptive_cost(reduced, images, batch_size=len(images))
        return counted.mean_gmacs, counted.mean_overhead_gmacs
    cost = reduced.cost((images.shape[2], images.shape[3]))
    return cost.gmacs, cost.overhead_gmacs


def _look_closer(
    timing: Timing,
    model: nn.Module,
    base: nn.Module,
    *,
    memory: bool,
    split: bool,
    image_shape: tuple[int, int, int],
    options: dict[str, Any],
    progress: bool,
) -> Timing:
    """The same, with peak memory and the split of the time."""
    size = (image_shape, timing.batch_size)
    if memory:
        timing = replace(
            timing,
            peak_bytes=peak_memory(model, *size, **options).peak_bytes,
            dense_peak_bytes=peak_memory(base, *size, **options).peak_bytes,
        )
    if split:
        found = time_split(model, *size, repeats=timing.pairs, **options, progress=progress)
        timing = replace(timing, split=found)
    return timing
