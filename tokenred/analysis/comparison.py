"""Strategies side by side: cost, speed against the dense model, accuracy on the same images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from tokenred.analysis.baseline_models import baselines_beside
from tokenred.analysis.difference import difference_columns
from tokenred.analysis.journal import Journal
from tokenred.analysis.level import check_level
from tokenred.analysis.lineup import DENSE, Strategies, named_specs, wrap_spec
from tokenred.analysis.measure.accuracy import Evaluation, evaluate_together
from tokenred.analysis.measure.image_costs import adaptive_columns
from tokenred.analysis.measure.inputs import open_for
from tokenred.analysis.measure.intervals import paired_difference
from tokenred.analysis.measure.machine import (
    base_of,
    check_device,
    cpu_threads,
    describe_machine,
    model_device,
    weights_digest,
)
from tokenred.analysis.measure.machine import channels_last as weights_last
from tokenred.analysis.measure.speed import Benchmark, benchmark
from tokenred.analysis.results import Comparison
from tokenred.core.fingerprint import digest
from tokenred.core.values import Size, read
from tokenred.data import ImageDataset, make_loader
from tokenred.data.classes import ClassMap
from tokenred.reduced.api import dense, gmacs
from tokenred.reduced.model import ReducedViT
from tokenred.strategies.config import fingerprint_if_any, to_config
from tokenred.strategies.specs import same_budget

__all__ = ["DENSE", "Comparison", "compare"]


def compare(
    model: nn.Module,
    data: str | Path | ImageDataset | None,
    strategies: Strategies | None = None,
    *,
    limit: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    timing: bool = True,
    pairs: int = 9,
    warmup: int = 2,
    max_seconds: float | None = None,
    threads: int | None = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    channels_last: bool = False,
    baselines: bool | Sequence[float] = False,
    smaller: nn.Module | str | None = None,
    seed: int = 0,
    level: float = 0.95,
    split: str | None = None,
    class_map: ClassMap = None,
    name: str | None = None,
    journal: str | Path | None = None,
    progress: bool = True,
) -> Comparison:
    """Run a model dense and under strategies, on the same images and the same machine.

    All strategies are wrapped, and the data is opened, before anything is measured. The dense
    model is the first row; its speed-up is that against itself, which shows the noise.

    Args:
        model: a dense model, or a `ReducedViT`, whose base is then used.
        data: see `tokenred.analysis.evaluate`; None to measure speed only.
        strategies: what `tokenred.analysis.parse_spec` takes, or a mapping from labels to it; None
            for five methods at 0.85 and 0.65 of the dense model's GMACs, see `same_budget`.
        limit: maximum number of images.
        batch_size, workers: of both measurements, and of the loading.
        timing: measure speed as well.
        pairs, warmup, max_seconds: of the timing, see `tokenred.analysis.benchmark`.
        threads: CPU threads of PyTorch; on a machine that others use, fewer can be faster.
        device, amp, channels_last, seed, split, class_map: as in `evaluate` and `benchmark`.
        baselines: also the honest baselines, see `tokenred.analysis.baselines`, at the cost of each
            strategy; or at these shares of the dense model's GMACs. Notes say which cannot be had.
        smaller: also this model, or that of this name, for the same images and classes.
        level: of the paired intervals.
        name: of the model, for the title.
        journal: a file that takes what is measured as it comes; where it is there, the comparison
            goes on behind it. Remove it when the results are kept.
        progress: show bars on a terminal.

    Raises:
        TokenredError: as `parse_spec`, `tokenred.wrap`, `evaluate` and `benchmark` raise them.
    """
    base = base_of(model)
    read(Size | None, threads, "threads")
    target = check_device(device)
    # A budget is found, and a number out of range refused, when a model is wrapped.
    cost = gmacs(base)
    specs = same_budget() if strategies is None else named_specs(strategies)
    reduced = {spec.label: wrap_spec(base, spec, cost) for spec in specs}
    others, notes = baselines_beside(base, specs, reduced, baselines, smaller)
    check_level(level)
    dataset = None
    if data is not None:
        dataset = open_for(base, data, split=split, class_map=class_map)
        # Refuses numbers out of range now, not after the timing.
        make_loader(dataset, batch_size, workers=workers, limit=limit, seed=seed)
    candidates: dict[str, nn.Module] = {DENSE: base, **reduced}
    candidates |= {other.label: other.model for other in others}
    place = target or model_device(base)
    speeds = None
    evaluations: dict[str, Evaluation] = {}
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "device": place,
        "amp": amp,
        "seed": seed,
        "progress": progress,
    }
    with ExitStack() as stack:
        stack.enter_context(cpu_threads(threads))
        stack.enter_context(weights_last([*candidates.values()], channels_last))
        machine = describe_machine(place)
        book = None
        if journal is not None:
            settings: dict[str, Any] = {
                "limit": limit,
                "timing": timing and [pairs, warmup, max_seconds],
            }
            settings |= {name: str(options[name]) for name in ("batch_size", "device", "amp")}
            settings |= {"seed": seed, "channels_last": channels_last, "machine": machine}
            book = Journal(Path(journal), settings | _identity(base, candidates, dataset))
            stack.callback(book.flush)
            speeds = book.speeds
        if timing and speeds is None:
            speeds = benchmark(
                candidates,
                dense=base,
                pairs=pairs,
                warmup=warmup,
                max_seconds=max_seconds,
                **options,
            )
            if book is not None:
                book.keep_speeds(speeds)
        if dataset is not None:
            evaluations = evaluate_together(
                candidates,
                dataset,
                workers=workers,
                limit=limit,
                channels_last=channels_last,
                kept=book,
                **options,
            )
    title = name or type(base).__name__
    common = {
        "model": title,
        "weights": weights_digest(base),
        "data": "" if dataset is None else dataset.name,
        "batch_size": batch_size,
        "precision": str(amp or next(base.parameters()).dtype).removeprefix("torch."),
        "seed": seed,
        **machine,
    }
    rows = [_row(DENSE, DENSE, dense(base), cost, speeds, evaluations, level)]
    counted = {"limit": limit, "batch_size": batch_size, "workers": workers, "seed": seed}
    rows += [
        _row(spec.label, spec.method, reduced[spec.label], cost, speeds, evaluations, level)
        | adaptive_columns(reduced[spec.label], dataset, cost, **counted)
        for spec in specs
    ]
    for other in others:
        row = _row(other.label, other.kind, other.reduced, cost, speeds, evaluations, level)
        if other.kind != "uniform":
            # No strategy of ours makes it what it is.
            row |= {"fingerprint": "", "config": other.config}
        rows.append(row)
    frame = pd.DataFrame([row | common for row in rows])
    return Comparison(frame, evaluations, speeds, level, notes)


def _identity(
    base: nn.Module, candidates: Mapping[str, nn.Module], data: ImageDataset | None
) -> dict[str, Any]:
    """Models and images of a comparison, in few words."""
    found: dict[str, Any] = {"weights": weights_digest(base), "rows": {}}
    for label, model in candidates.items():
        own = fingerprint_if_any(model.strategy) if isinstance(model, ReducedViT) else ""
        found["rows"][label] = [own, weights_digest(model)]
    if data is not None:
        names = [data.name_of(index) for index in range(len(data))]
        told = json.dumps([names, list(map(int, data.labels))])
        found["data"] = [data.name, len(data), digest(told), str(data.transform)]
    return found


def _row(
    label: str,
    method: str,
    model: ReducedViT,
    dense_gmacs: float,
    speeds: Benchmark | None,
    evaluations: Mapping[str, Evaluation],
    level: float,
) -> dict[str, Any]:
    cost = model.cost()
    tokens = [cost.layers[0].tokens_in, *(layer.tokens_out for layer in cost.layers)]
    row: dict[str, Any] = {
        "strategy": label,
        "method": method,
        "tokens": " ".join(map(str, tokens)),
        "gmacs": cost.gmacs,
        "overhead_gmacs": cost.overhead_gmacs,
        "gmacs_share": cost.gmacs / dense_gmacs,
    }
    if speeds is not None:
        left_out = ("name", "batch_size", "gmacs")
        row |= {k: v for k, v in speeds[label].to_dict().items() if k not in left_out}
    if evaluations:
        own, reference = evaluations[label], evaluations[DENSE]
        row |= {
            "top1": own.top1,
            "top5": own.top5,
            "images": own.count,
            "skipped": len(own.skipped),
        }
        if label != DENSE:
            gap = paired_difference(own.correct, reference.correct, level)
            row |= difference_columns(asdict(gap))
    configured = None if label == DENSE else model.strategy
    row["fingerprint"] = "" if configured is None else fingerprint_if_any(configured)
    row["config"] = "" if configured is None else json.dumps(to_config(configured, strict=False))
    return row
