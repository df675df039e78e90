"""Where the time of a forward goes: attention, statistics, choosing, projections, MLP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from tokenred.analysis.measure.context import (
    autocast,
    check_amp,
    check_device,
    check_threads,
    cpu_threads,
    measured,
)
from tokenred.analysis.measure.machine import describe_machine
from tokenred.analysis.measure.speed.candidates import check_count, image_shape_of, make_images
from tokenred.analysis.measure.speed.clock import Marker, make_clock, no_collection
from tokenred.analysis.measure.speed.splits import LINES, TimeSplit, summarise_split
from tokenred.attention import QKV, AttentionSpec, AttentionStats, Engine, FusedEngine, attend
from tokenred.core.state import TokenState
from tokenred.reduced.api import dense
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.recorder import PHASES, Span

__all__ = ["TimeSplit", "time_split"]

# Phase of the block loop -> line of the table. "attention" is told apart by the probe.
_LINE_OF = {
    "embed": "ends",
    "head": "ends",
    "graph": "graph",
    "block": "untouched",
    "heads": "projections",
    "project": "projections",
    "select": "selection",
    "fuse": "fuse",
    "mlp": "mlp",
}
_ALONE, _BARE, _FULL = "attention alone", "bare attention", "attention with statistics"


def time_split(
    model: nn.Module,
    image_shape: Sequence[int] | None = None,
    batch_size: int = 32,
    repeats: int = 9,
    *,
    warmup: int = 1,
    threads: int | None = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    seed: int = 0,
    progress: bool = True,
) -> TimeSplit:
    """Split the time of a forward among its phases.

    Looks at the block loop from outside, at the borders of its phases. The statistics' share is a
    difference: where a block's attention gives statistics or applies θ, fused attention runs on the
    same tokens right before, and is taken out of the sum again. Forwards that are looked into
    alternate with some that are not, so that the cost of looking shows. Nothing is compiled.

    Args:
        model: a `ReducedViT`, or a dense model, whose blocks then are all ``untouched``.
        image_shape: ``(channels, height, width)``; None for the model's own.
        batch_size: images in a batch.
        repeats: forwards looked into, and as many that are not.
        warmup: of each kind before those, not counted.
        threads: CPU threads of PyTorch; None leaves them.
        device: where to run; None for where the model is.
        amp: ``torch.bfloat16`` or ``torch.float16`` for mixed precision.
        seed: of the images.
        progress: show a bar on a terminal.

    Raises:
        ConfigError: for numbers out of range.
        InputError: for images of a shape that the model refuses.
        BackboneError: for a model that no adapter knows.
    """
    check_count("batch_size", batch_size, 1)
    check_count("repeats", repeats, 1)
    check_count("warmup", warmup, 0)
    check_amp(amp)
    check_threads(threads)
    target = check_device(device)
    reduced = model if isinstance(model, ReducedViT) else dense(model)
    shape = image_shape_of(reduced.base, image_shape)
    images = make_images((batch_size, *shape), reduced.base, seed)
    reduced.backbone.check_images(images)
    grid = reduced.backbone.grid_of(*shape[1:])
    looked: list[dict[str, float]] = []
    plain: list[float] = []
    with ExitStack() as stack:
        place = stack.enter_context(measured(reduced, target))
        stack.enter_context(cpu_threads(threads))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(autocast(place, amp))
        stack.enter_context(no_collection())
        images = images.to(place)
        clock = make_clock(place)
        quiet = None if progress else True
        for turn in tqdm(range(warmup + repeats), desc="split", leave=False, disable=quiet):
            whole, parts = clock(reduced, images), _look(reduced, images, Marker(place))
            if turn >= warmup:
                plain.append(whole)
                looked.append(parts)
        machine = describe_machine(place)
    return summarise_split(
        {name: np.array([parts[name] for parts in looked]) for name in LINES},
        np.array(plain),
        batch_size=batch_size,
        image_shape=shape,
        tokens=reduced.info.num_prefix + grid[0] * grid[1],
        precision=str(amp or images.dtype).removeprefix("torch."),
        seed=seed,
        machine=machine,
    )


def _look(model: ReducedViT, images: Tensor, marker: Marker) -> dict[str, float]:
    """Seconds of each line in one forward."""
    marks: list[tuple[str, Any, Any]] = []

    @contextmanager
    def span(phase: str) -> Iterator[None]:
        begin = marker.mark()
        yield
        marks.append((phase, begin, marker.mark()))

    begin = marker.mark()
    model.run_with_spans(images, span, engines=(_Probe(model.engines, span),))
    end = marker.mark()
    marker.settle()
    found = dict.fromkeys((*PHASES, _ALONE, _BARE, _FULL), 0.0)
    for phase, first, last in marks:
        found[phase] += marker.seconds(first, last)
    lines = dict.fromkeys(LINES, 0.0)
    for phase, line in _LINE_OF.items():
        lines[line] += found[phase]
    lines["attention"] = found[_ALONE] + found[_BARE]
    lines["statistics"] = found[_FULL] - found[_BARE]
    # The bare attention beside the full one is work that the forward does not have.
    whole = marker.seconds(begin, end) - (found[_BARE] if found[_FULL] else 0.0)
    lines["rest"] = whole - sum(lines.values())
    return lines


class _Probe(Engine):
    """Fused attention without anything, then what the model's own engines do."""

    def __init__(self, engines: tuple[Engine, ...], span: Span) -> None:
        self.engines, self.span, self.fused = engines, span, FusedEngine()

    def supports(self, heads: QKV, request: AttentionSpec) -> bool:
        return True

    def __call__(
        self, heads: QKV, request: AttentionSpec, state: TokenState
    ) -> tuple[Float[Tensor, "b h N d"], AttentionStats]:
        if not request.needs_map:
            with self.span(_ALONE):
                return attend(heads, request, state, self.engines)
        bare = replace(request, requires=(), theta=1.0, score_mods=())
        with self.span(_BARE):
            self.fused(heads, bare, state)
        with self.span(_FULL):
            return attend(heads, request, state, self.engines)
