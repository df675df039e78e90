"""Where the time of a forward goes: attention, statistics, choosing, projections, MLP."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tokenred.analysis.measure.timing import Clock, on_random_images
from tokenred.attention import QKV, AttentionSpec, AttentionStats, Engine, FusedEngine, attend
from tokenred.core.progress import progress_bar
from tokenred.core.state import TokenState
from tokenred.core.values import Count, Size, checked
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.recorder import PHASES, Span
from tokenred.reduced.wrap import dense

LINES: dict[str, tuple[str, ...]] = {
    "attention": (),
    "statistics": (),
    "selection": ("select",),
    "graph": ("graph",),
    "fuse": ("fuse",),
    "projections": ("heads", "project"),
    "mlp": ("mlp",),
    "untouched": ("block",),
    "ends": ("embed", "head"),
    "rest": (),
}
"""The lines of a split, and the phases of the block loop in each.

The probe separates ``attention`` from ``statistics``, the cost of attention beyond fused attention
on the same tokens; noise can make it negative. ``untouched`` are the model's own blocks, run
unchanged. ``rest`` is what no phase covers.
"""
_CHOOSING = ("selection", "graph", "fuse")
_ALONE, _BARE, _FULL = "attention alone", "bare attention", "attention with statistics"


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
) -> dict[str, float]:
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

    Returns:
        Each line's share of the sum of their median times, by name as ``split_mlp``;
        ``split_choosing`` for selection, graph and fuse together; ``split_cost_of_looking``, by how
        much the sum exceeds a forward that is not observed, as a share.

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
        progress_bar(warmup + repeats, "split", "pairs", progress, leave=False) as bar,
    ):  # fmt: skip
        clock = Clock(images.device)
        for _ in range(warmup + repeats):
            plain.append(clock(reduced, images))
            looked.append(_look(reduced, images, clock))
            bar.update()
    return shares_of(looked[warmup:], plain[warmup:])


def shares_of(looked: Sequence[dict[str, float]], plain: Sequence[float]) -> dict[str, float]:
    """The result of `time_split`, from the seconds of each line and of unobserved forwards."""
    seconds = {name: float(np.median([lines[name] for lines in looked])) for name in LINES}
    total = sum(seconds.values())
    choosing = float(np.median([sum(lines[name] for name in _CHOOSING) for lines in looked]))
    shares = {f"split_{name}": own / total for name, own in seconds.items()}
    return shares | {
        "split_choosing": choosing / total,
        "split_cost_of_looking": total / float(np.median(plain)) - 1,
    }


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
    lines = {name: sum(found[phase] for phase in phases) for name, phases in LINES.items()}
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
