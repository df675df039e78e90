"""Where the time of a forward goes: attention, statistics, choosing, projections, MLP."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from tokenred.analysis.measure.inputs import progress_bar
from tokenred.analysis.measure.machine import describe_machine, precision_of, told_machine
from tokenred.analysis.measure.timing import Clock, on_random_images
from tokenred.analysis.result import Result, plain_table
from tokenred.attention import QKV, AttentionSpec, AttentionStats, Engine, FusedEngine, attend
from tokenred.core.errors import UnknownNameError
from tokenred.core.state import TokenState
from tokenred.core.values import Count, Size, checked
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.recorder import PHASES, Span
from tokenred.reduced.wrap import dense

# Name of a line -> how it is printed, and the phases of the block loop in it. The probe separates
# "attention" from "statistics".
_LINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "attention": ("attention", ()),
    "statistics": ("statistics and θ", ()),
    "selection": ("selection", ("select",)),
    "graph": ("graph", ("graph",)),
    "fuse": ("fuse", ("fuse",)),
    "projections": ("qkv and projection", ("heads", "project")),
    "mlp": ("MLP", ("mlp",)),
    "untouched": ("untouched blocks", ("block",)),
    "ends": ("embedding and head", ("embed", "head")),
    "rest": ("rest", ()),
}
LINES = {name: title for name, (title, _) in _LINES.items()}
"""The lines of a split, and how they are printed."""
_CHOOSING = ("selection", "graph", "fuse")
_ALONE, _BARE, _FULL = "attention alone", "bare attention", "attention with statistics"


@dataclass(frozen=True)
class PhaseTime:
    """One line of a split.

    Attributes:
        name: a key of `LINES`.
        ms: median time of a batch, in milliseconds.
        ms_q1, ms_q3: its quartiles.
        share: of the sum of all lines.
    """

    name: str
    ms: float
    ms_q1: float
    ms_q3: float
    share: float


@dataclass(frozen=True, repr=False)
class TimeSplit(Result):
    """Where the time of a forward goes; ``[name]`` finds a line, ``print`` shows the table.

    Attributes:
        phases: the lines of `LINES`, in order. ``statistics`` is the cost of attention beyond fused
            attention on the same tokens; noise can make it negative. ``untouched`` are the model's
            own blocks, run unchanged. ``rest`` is what no phase covers.
        choosing: selection, graph and fuse together.
        ms: the sum of the lines.
        plain_ms: median time of a forward that is not observed.
        repeats: forwards of each kind.
        batch_size, image_shape, tokens, precision, seed: what ran; ``tokens`` enter the first
            block, including the prefix.
        machine: see `tokenred.analysis.describe_machine`.
    """

    phases: tuple[PhaseTime, ...]
    choosing: PhaseTime
    ms: float
    plain_ms: float
    repeats: int
    batch_size: int
    image_shape: tuple[int, int, int]
    tokens: int
    precision: str
    seed: int
    machine: dict[str, str | int]

    def __getitem__(self, name: str) -> PhaseTime:
        """The line of a name in `LINES`."""
        for phase in self.phases:
            if phase.name == name:
                return phase
        raise UnknownNameError.of("phase", name, [phase.name for phase in self.phases])

    @property
    def cost_of_looking(self) -> float:
        """By how much the sum of the lines exceeds a forward that is not observed, as a share."""
        return self.ms / self.plain_ms - 1

    def shares(self) -> dict[str, float]:
        """Share of each line, and of ``choosing``."""
        return {phase.name: phase.share for phase in (*self.phases, self.choosing)}

    def columns(self) -> dict[str, float]:
        """The shares as ``split_attention`` and so on, and ``split_cost_of_looking``."""
        shares = {f"split_{name}": share for name, share in self.shares().items()}
        return shares | {"split_cost_of_looking": self.cost_of_looking}

    def frame(self) -> Any:
        """A pandas frame, one row per line."""
        import pandas as pd

        return pd.DataFrame(map(dataclasses.asdict, self.phases))

    def table(self) -> Table:
        table = plain_table("Where the time goes", ["phase", "ms", "[quartiles]", "share"])
        for phase in (*self.phases, self.choosing):
            title = LINES.get(phase.name, "select, graph, fuse")
            spread = Text(f"[{phase.ms_q1:.2f}, {phase.ms_q3:.2f}]")
            table.add_row(title, f"{phase.ms:.2f}", spread, f"{phase.share:.1%}")
        return table

    def footnotes(self) -> list[str]:
        return [
            f"sum {self.ms:.2f} ms, {self.cost_of_looking:+.1%} against the {self.plain_ms:.2f} ms "
            f"of an unobserved forward; {self.repeats} of each",
            f"batch {self.batch_size}, {self.tokens} tokens, {self.precision}; "
            f"{told_machine(self.machine)}",
        ]


@checked
def time_split(
    model: nn.Module,
    image_shape: Sequence[int] | None = None,
    batch_size: Size = 32,
    repeats: Size = 9,
    *,
    warmup: Count = 1,
    threads: Size | None = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    seed: Count = 0,
    progress: bool = True,
) -> TimeSplit:
    """Split the time of a forward among its phases.

    Observes the block loop from outside, at the boundaries of its phases. The statistics' share is
    a difference: if a block's attention gives statistics or applies θ, fused attention runs on the
    same tokens right before, and its time is subtracted again. Observed forwards alternate with
    unobserved ones, which shows the cost of observing. Nothing is compiled.

    Args:
        model: a `ReducedViT`, or a dense model, all of whose blocks are ``untouched``.
        image_shape: ``(channels, height, width)``; None for the model's own.
        batch_size, threads, device, amp, seed, progress: as in `tokenred.analysis.benchmark`.
        repeats: number of observed forwards, and of unobserved ones.
        warmup: number of each kind before those, not counted.

    Raises:
        ConfigError: for numbers out of range.
        InputError: if the model refuses the image shape.
        BackboneError: for a model that no adapter knows.
    """
    reduced = model if isinstance(model, ReducedViT) else dense(model)
    looked: list[dict[str, float]] = []
    plain: list[float] = []
    with (
        on_random_images(
            [reduced], [reduced.base], image_shape, batch_size, threads=threads, device=device,
            amp=amp, seed=seed,
        ) as images,
        progress_bar(warmup + repeats, "split", "pair", progress) as bar,
    ):  # fmt: skip
        clock = Clock(images.device)
        for _ in range(warmup + repeats):
            plain.append(clock(reduced, images))
            looked.append(_look(reduced, images, clock))
            bar.update()
        grid = reduced.backbone.grid_of(*images.shape[2:])
        return summarise_split(
            {name: np.array([parts[name] for parts in looked[warmup:]]) for name in LINES},
            np.array(plain[warmup:]),
            batch_size=batch_size,
            image_shape=tuple(images.shape[1:]),
            tokens=reduced.info.num_prefix + grid[0] * grid[1],
            precision=precision_of(images, amp),
            seed=seed,
            machine=describe_machine(images.device),
        )


def _look(model: ReducedViT, images: Tensor, clock: Clock) -> dict[str, float]:
    """Seconds of each line in one forward."""
    marks: list[tuple[str, Any, Any]] = []

    @contextmanager
    def span(phase: str) -> Iterator[None]:
        begin = clock.mark()
        yield
        marks.append((phase, begin, clock.mark()))

    begin = clock.mark()
    model.run_with_spans(images, span, engines=(_Probe(model.engines, span),))
    whole = clock.seconds(begin, clock.mark())
    found = dict.fromkeys((*PHASES, _ALONE, _BARE, _FULL), 0.0)
    for phase, first, last in marks:
        found[phase] += clock.seconds(first, last)
    lines = {name: sum(found[phase] for phase in phases) for name, (_, phases) in _LINES.items()}
    lines["attention"] = found[_ALONE] + found[_BARE]
    lines["statistics"] = found[_FULL] - found[_BARE]
    # The additional fused attention is not part of the forward.
    lines["rest"] = whole - found[_BARE] - sum(lines.values())
    return lines


class _Probe(Engine):
    """Fused attention alone, then the model's own engines."""

    def __init__(self, engines: tuple[Engine, ...], span: Span) -> None:
        self.engines, self.span, self.fused = engines, span, FusedEngine()

    def supports(self, qkv: QKV, spec: AttentionSpec) -> bool:
        return True

    def __call__(
        self, qkv: QKV, spec: AttentionSpec, state: TokenState
    ) -> tuple[Float[Tensor, "b h N d"], AttentionStats]:
        if not spec.needs_map:
            with self.span(_ALONE):
                return attend(qkv, spec, state, self.engines)
        bare = replace(spec, requires=(), theta=1.0, score_mods=())
        with self.span(_BARE):
            self.fused(qkv, bare, state)
        with self.span(_FULL):
            return attend(qkv, spec, state, self.engines)


def summarise_split(
    seconds: Mapping[str, NDArray[np.float64]], plain: NDArray[np.float64], **about: Any
) -> TimeSplit:
    """Medians, quartiles and shares of ``(repeats,)`` seconds, by name in `LINES`.

    Args:
        plain: ``(repeats,)`` seconds of unobserved forwards.
        about: the other fields of `TimeSplit`.
    """
    total = sum(float(np.median(times)) for times in seconds.values())

    def phase(name: str, times: NDArray[np.float64]) -> PhaseTime:
        low, middle, high = np.quantile(times * 1e3, [0.25, 0.5, 0.75]).tolist()
        return PhaseTime(name, middle, low, high, middle / 1e3 / total)

    return TimeSplit(
        phases=tuple(phase(name, seconds[name]) for name in LINES),
        choosing=phase("choosing", np.sum([seconds[name] for name in _CHOOSING], axis=0)),
        ms=total * 1e3,
        plain_ms=float(np.median(plain)) * 1e3,
        repeats=len(plain),
        **about,
    )
