"""Speed against the dense model, measured in consecutive pairs; peak memory of a forward."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from tokenred.analysis.measure.image_costs import adaptive_cost, is_adaptive
from tokenred.analysis.measure.machine import base_of, describe_machine, others_cpu_time
from tokenred.analysis.measure.timing import (
    Candidate,
    Clock,
    image_shape_of,
    named_candidates,
    on_random_images,
    runnable,
)
from tokenred.analysis.result import Result, count
from tokenred.analysis.terminal_table import plain_table
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.core.progress import progress_bar
from tokenred.core.values import Compile, Count, Magnitude, Size, checked
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.wrap import dense as nothing_removed

_FEWEST = 3
_LEVEL = 0.90
_RESAMPLES = 5000
_SLACK = 0.1  # cores


@dataclass(frozen=True)
class Timing:
    """One candidate against the dense model.

    Attributes:
        name: of the candidate.
        batch_size, pairs: images per batch, pairs of runs.
        dense_ms, ms: median time per batch, in milliseconds.
        images_per_second: of the candidate, from its median time.
        speedup: median over the pairs of dense time ÷ candidate time.
        speedup_low, speedup_high: its 90% bootstrap interval.
        gmacs, dense_gmacs: cost per image, in 10⁹ multiply-accumulates.
        overhead_gmacs: cost of choosing and fusing tokens, not included in ``gmacs``; NaN if a part
            of your own does not declare its.
        ms_q1, ms_q3, dense_ms_q1, dense_ms_q3, speedup_q1, speedup_q3: quartiles.
        allowed: the speed-up that the arithmetic allows: dense GMACs ÷ GMACs.
        realised: the realised fraction: speed-up ÷ allowed speed-up.
        realised_low, realised_high: its 90% interval.
    """

    name: str
    batch_size: int
    pairs: int
    dense_ms: float
    ms: float
    images_per_second: float
    speedup: float
    speedup_low: float
    speedup_high: float
    gmacs: float
    dense_gmacs: float
    overhead_gmacs: float
    ms_q1: float
    ms_q3: float
    dense_ms_q1: float
    dense_ms_q3: float
    speedup_q1: float
    speedup_q3: float
    allowed: float
    realised: float
    realised_low: float
    realised_high: float

    def to_dict(self) -> dict[str, Any]:
        """All figures by name."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, repr=False)
class Benchmark(Result):
    """Timings and their settings. Iterates over the timings; ``[name]`` finds one.

    Attributes:
        timings: one per candidate.
        batch_size, image_shape, precision, seed: the settings.
        machine: see `tokenred.analysis.describe_machine`.
        compile: whether dense model and candidates were compiled, or in which mode.
        others: CPU cores that other programs used meanwhile, on average (known on Linux only).
    """

    timings: tuple[Timing, ...]
    batch_size: int
    image_shape: tuple[int, int, int]
    precision: str
    seed: int
    machine: dict[str, str | int]
    compile: bool | str = False
    others: float = 0.0

    def __iter__(self) -> Iterator[Timing]:
        return iter(self.timings)

    def __len__(self) -> int:
        return len(self.timings)

    def __getitem__(self, key: str | int) -> Timing:
        """The timing with a name or at a position."""
        if isinstance(key, int):
            return self.timings[key]
        for timing in self.timings:
            if timing.name == key:
                return timing
        raise UnknownNameError.of("timing", key, [t.name for t in self.timings])

    def frame(self) -> Any:
        """A pandas frame, one row per candidate, with the settings and the machine."""
        import pandas as pd

        shape = "x".join(map(str, self.image_shape))
        common = {"precision": self.precision, "seed": self.seed, **self.machine}
        common |= {"image_shape": shape, "compile": str(self.compile).lower()}
        return pd.DataFrame([timing.to_dict() | common for timing in self.timings])

    def table(self) -> Table:
        table = plain_table(
            "Speed against the dense model",
            ["candidate", "ms", "dense ms", "img/s", "speed-up [90%]", "allowed", "realised [90%]"],
        )
        for t in self.timings:
            speedup = f"{t.speedup:.2f} [{t.speedup_low:.2f}, {t.speedup_high:.2f}]"
            realised = f"{t.realised:.2f} [{t.realised_low:.2f}, {t.realised_high:.2f}]"
            cells = [t.name, f"{t.ms:.1f}", f"{t.dense_ms:.1f}", f"{t.images_per_second:.1f}",
                     speedup, f"{t.allowed:.2f}", realised]  # fmt: skip
            table.add_row(*map(Text, cells))
        return table

    def footnotes(self) -> list[str]:
        compiled = ", compiled" if self.compile else ""
        pairs = self.timings[0].pairs if self.timings else 0
        how = f"batch {self.batch_size}, {self.precision}{compiled}, {pairs} pairs; "
        cores, threads = (count(int(self.machine[f"{n}s"]), n) for n in ("core", "thread"))
        where = f"{{processor}}, {cores}, {threads}, torch {{torch}}, device {{device}}"
        lines = [how + where.format_map(self.machine)]
        free = (os.cpu_count() or 1) - self.others
        if self.machine["device"] == "cpu" and free < int(self.machine["threads"]) - _SLACK:
            lines.append(
                f"Other programs used {self.others:.1f} cores meanwhile, so the speed-ups can be "
                "far off. Repeat it on an idle machine, or with fewer threads."
            )
        return lines


@checked
def benchmark(
    models: Candidate | Sequence[Candidate] | Mapping[str, Candidate],
    image_shape: Sequence[int] | None = None,
    *,
    dense: nn.Module | None = None,
    batch_size: Size = 32,
    pairs: Annotated[int, Ge(2)] = 15,
    warmup: Count = 2,
    max_seconds: Magnitude | None = None,
    threads: Size | None = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    compile: Compile = False,
    seed: Count = 0,
    progress: bool = True,
) -> Benchmark:
    """Time reduced models against their unmodified dense model with its own fused attention.

    On a shared machine the dense model's own time varies by some percent. So it runs right before
    every run of a candidate, on the same random images; the speed-up is the median over such pairs
    of dense time ÷ candidate time, and its interval comes from a seeded bootstrap over the pairs.
    The candidates take turns, so that a slow minute affects all of them.

    Args:
        models: a `ReducedViT`, a sequence of them, or a mapping from names to them. With
            ``dense``, also strategies and recipes' names, or a plain model, such as the dense one
            itself to see the noise.
        image_shape: ``(channels, height, width)``; None for the model's own.
        dense: the model to compare with; None for each candidate's ``base``.
        batch_size: images per batch.
        pairs, warmup: number of pairs per candidate, at least 2, and of those before, not counted.
        max_seconds: start no further pair after this time, once there are 3 per candidate.
        threads: CPU threads of PyTorch; None for no change. On a shared machine, fewer can be
            faster.
        device: where to run; None for the model's device.
        amp: ``torch.bfloat16`` or ``torch.float16`` for mixed precision.
        compile: compile dense model and candidates as full graphs with fixed shapes, before the
            warm-up: True, or a mode of ``torch.compile``.
        seed: seed of images and bootstrap.
        progress: show progress on standard error.

    Raises:
        ConfigError: if a number is out of range, strategies are given without ``dense``, or a model
            cannot be compiled.
        InputError: if a model refuses the image shape.
        PartError: for candidates of another kind.
    """
    todo = named_candidates(models, dense)
    bases = {name: base_of(model) if dense is None else dense for name, model in todo.items()}
    distinct = {id(model): model for model in (*bases.values(), *todo.values())}
    asked: dict[str, Any] = {"threads": threads, "device": device, "amp": amp, "seed": seed}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in todo}
    with (
        on_random_images(
            distinct.values(), list(bases.values()), image_shape, batch_size, **asked
        ) as images,
        progress_bar((warmup + pairs) * len(todo), "speed", "pairs", progress, leave=False) as bar,
        runnable(distinct, compile, images) as runs,
    ):
        costs = {key: _gmacs(model, images) for key, model in distinct.items()}
        clock = Clock(images.device)
        start, before = time.monotonic(), others_cpu_time()
        deadline = float("inf") if max_seconds is None else start + max_seconds
        for turn in range(warmup + pairs):
            if turn >= warmup + _FEWEST and time.monotonic() > deadline:
                break
            for name, model in todo.items():
                reference, own = runs[id(bases[name])], runs[id(model)]
                times[name].append((clock(reference, images), clock(own, images)))
                bar.update()
        others = (others_cpu_time() - before) / (time.monotonic() - start)
        machine = describe_machine(images.device)
        precision = str(amp or images.dtype).removeprefix("torch.")
        shape = image_shape_of(next(iter(bases.values())), images.shape[1:])
    timings = []
    for name, model in todo.items():
        gmacs, overhead = costs[id(model)]
        whole, _ = costs[id(bases[name])]
        found = np.array(times[name][warmup:])
        timing = summarise(
            name, found, batch_size, gmacs, whole, overhead_gmacs=overhead, seed=seed
        )
        timings.append(timing)
    return Benchmark(
        tuple(timings), batch_size, shape, precision, seed, machine, compile, max(0.0, others)
    )


def _gmacs(model: nn.Module, images: Tensor) -> tuple[float, float]:
    """Cost and overhead per image; the mean if token counts depend on the image."""
    reduced = model if isinstance(model, ReducedViT) else nothing_removed(model)
    if is_adaptive(reduced):
        counted = adaptive_cost(reduced, images, batch_size=len(images))
        return counted.mean_gmacs, counted.mean_overhead_gmacs
    cost = reduced.cost((images.shape[2], images.shape[3]))
    return cost.gmacs, float("nan") if cost.unknown else cost.overhead_gmacs


def summarise(
    name: str,
    seconds: NDArray[np.float64],
    batch_size: int,
    gmacs: float,
    dense_gmacs: float,
    *,
    overhead_gmacs: float = 0.0,
    seed: int = 0,
) -> Timing:
    """Medians and quartiles, and the percentile bootstrap of the median ratio.

    ``seconds`` are ``(pairs, 2)`` times of the dense model and of the candidate.
    """
    ratios = seconds[:, 0] / seconds[:, 1]
    from scipy import stats

    sure = stats.bootstrap(
        (ratios,), np.median, confidence_level=_LEVEL, n_resamples=_RESAMPLES, method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    allowed = dense_gmacs / gmacs
    figures = np.column_stack((seconds * 1e3, ratios))
    dense_ms, ms, speedup = np.quantile(figures, [0.25, 0.5, 0.75], axis=0).T.tolist()
    return Timing(
        name=name, batch_size=batch_size, pairs=len(ratios), dense_ms=dense_ms[1], ms=ms[1],
        images_per_second=batch_size / ms[1] * 1e3, speedup=speedup[1], speedup_low=sure.low,
        speedup_high=sure.high, gmacs=gmacs, dense_gmacs=dense_gmacs, overhead_gmacs=overhead_gmacs,
        ms_q1=ms[0], ms_q3=ms[2], dense_ms_q1=dense_ms[0], dense_ms_q3=dense_ms[2],
        speedup_q1=speedup[0], speedup_q3=speedup[2], allowed=allowed,
        realised=speedup[1] / allowed, realised_low=sure.low / allowed,
        realised_high=sure.high / allowed,
    )  # fmt: skip


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
