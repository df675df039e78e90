"""Strategies side by side: cost, speed against the dense model, accuracy on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tokenred.analysis.baseline_models import Baseline, baselines_beside
from tokenred.analysis.lineup import DENSE, Strategies, named_specs, wrap_spec
from tokenred.analysis.measure.accuracy import Evaluation
from tokenred.analysis.measure.candidates import image_shape_of
from tokenred.analysis.measure.inputs import open_for
from tokenred.analysis.measure.machine import base_of, check_device, cpu_threads
from tokenred.analysis.measure.speed import Benchmark, Timing
from tokenred.analysis.results import Comparison
from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.refs import DataRef, read_data
from tokenred.analysis.study.store import Differences, Store
from tokenred.core.values import PartOf, Size, read
from tokenred.data import ImageDataset, make_loader
from tokenred.data.classes import ClassMap
from tokenred.strategies.specs import Spec, same_budget

if TYPE_CHECKING:
    from tokenred.analysis.study.study import Study

__all__ = ["Comparison", "compare"]


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
    store: Store | str | Path | None = None,
    progress: bool = True,
) -> Comparison:
    """Run a model dense and under strategies, on the same images and the same machine.

    A grid (`tokenred.analysis.Grid`) with a row for each strategy. All are wrapped, and the data is
    opened, before anything is measured. The dense model is the first row; its speed-up is that
    against itself, which shows the noise.

    Args:
        model: a dense model, or a `ReducedViT`, whose base is then used.
        data: see `tokenred.analysis.evaluate`; None to measure speed only.
        strategies: what `tokenred.analysis.parse_spec` takes, or a mapping from labels to it; None
            for five methods at 0.85 and 0.65 of the dense model's GMACs, see `same_budget`.
        limit: maximum number of images.
        batch_size, workers: of both measurements, and of the loading.
        timing: measure speed as well.
        pairs: timed runs of each strategy, each right after one of the dense model.
        warmup: such pairs beforehand that do not count.
        max_seconds: fewer pairs, but 3 at least, where a strategy takes longer.
        threads: CPU threads of PyTorch; on a machine that others use, fewer can be faster.
        device, amp, seed, split, class_map: as in `evaluate` and `benchmark`.
        channels_last: images and convolutions' weights as NHWC in memory.
        baselines: also the honest baselines, see `tokenred.analysis.baselines`, at the cost of each
            strategy; or at these shares of the dense model's GMACs. Notes say which cannot be had.
        smaller: also this model, or that of this name, for the same images and classes.
        level: of the paired intervals.
        name: of the model, for the title.
        store: keeps each row as soon as it is measured; what it holds is not measured again, so
            that a comparison which was stopped goes on behind it.
        progress: show a bar on a terminal.

    Raises:
        TokenredError: as `parse_spec`, `tokenred.wrap`, `evaluate` and `benchmark` raise them.
        StudyInterruptedError: where the user stops it (Ctrl-C).
    """
    base = base_of(model)
    read(Size | None, threads, "threads")
    target = check_device(device)
    specs = same_budget() if strategies is None else named_specs(strategies)
    reduced = {spec.label: wrap_spec(base, spec) for spec in specs}
    others, notes = baselines_beside(base, specs, reduced, baselines, smaller)
    read(PartOf, level, "level")
    dataset = None
    if data is not None:
        dataset = open_for(base, data, split=split, class_map=class_map)
        # Refuses numbers out of range now, not after the timing.
        make_loader(dataset, batch_size, workers=workers, limit=limit, seed=seed)
    speed = {"name": "speed", "pairs": pairs, "warmup": warmup, "max_seconds": max_seconds}
    grid = Grid(
        cells=[{"base": DENSE}, *({"base": spec} for spec in specs), *map(_cell, others)],
        model=base,
        data=None if dataset is None else _reference(data, dataset, split, class_map),
        metrics=[*[speed] * timing, *["accuracy", "mean_cost"] * (dataset is not None)],
        reference=base,
        limit=limit,
        batch_size=batch_size,
        seed=seed,
        dtype=None if amp is None else f"amp:{amp}".replace("torch.", ""),
        device=None if target is None else str(target),
        channels_last=channels_last,
        loaders=workers,
        name="comparison",
    )
    with ExitStack() as stack:
        stack.enter_context(cpu_threads(threads))
        study = grid.run(store, level=level, on_error="raise", progress=progress)
        if not isinstance(store, Store):
            stack.enter_context(closing(study.store))
        entries = [(DENSE, DENSE), *((spec.label, spec.method) for spec in specs)]
        entries += [(other.label, other.kind) for other in others]
        return _comparison(study, entries, others, base, dataset, level, name, notes)


def _cell(other: Baseline) -> dict[str, Any]:
    """The cell of a baseline."""
    if other.kind == "uniform":
        return {"base": Spec(other.label, other.kind, other.reduced.strategy)}
    return {"base": DENSE, "model": other.model}


def _reference(
    data: Any, dataset: ImageDataset, split: str | None, class_map: ClassMap
) -> DataRef | ImageDataset:
    """The dataset with the base's own preprocessing, for all models."""
    if isinstance(data, ImageDataset):
        return dataset
    told = read_data(data, split, class_map)
    return DataRef(dataset.name, told.arguments, dataset)


def _comparison(
    study: Study,
    entries: Sequence[tuple[str, str]],
    others: Sequence[Baseline],
    base: nn.Module,
    dataset: ImageDataset | None,
    level: float,
    name: str | None,
    notes: tuple[str, ...],
) -> Comparison:
    """The results of a grid as a comparison."""
    import pandas as pd

    records, store = study.records, study.store
    first, differences = records[0], Differences(study.store, level)
    configs = {other.label: other.config for other in others if other.kind != "uniform"}
    evaluations: dict[str, Evaluation] = {}
    timings, rows = [], []
    for (label, method), found in zip(entries, records, strict=True):
        own = label != DENSE and label not in configs
        row = {
            "strategy": label,
            "method": method,
            "tokens": found.get("mean_tokens", found["tokens"]),
            "gmacs": found.get("mean_gmacs", found["gmacs"]),
            "overhead_gmacs": found.get("mean_overhead_gmacs", found["overhead_gmacs"]),
        }
        row["gmacs_share"] = row["gmacs"] / first["gmacs"]
        if "speedup" in found:
            timings.append(Timing.from_dict({**found, "name": label}))
            figures = timings[-1].to_dict()
            row |= {k: v for k, v in figures.items() if k not in ("name", "batch_size", *row)}
        if dataset is not None:
            evaluations[label] = _evaluation(store, found, dataset, base)
            row |= {name: found[name] for name in ("top1", "top5", "images")}
            row["skipped"] = found["unreadable"]
            if label != DENSE:
                row |= differences(found["key"], first["key"])
        row["fingerprint"] = found["fingerprint"] if own else ""
        row["config"] = found["config"] if own else configs.get(label, "")
        rows.append(row)
    store.keep_comparisons(differences.fresh)
    machine = {name: first[name] for name in _MACHINE if name in first}
    common = {
        "model": name or type(base).__name__,
        "weights": first["weights"],
        "data": "" if dataset is None else dataset.name,
        "batch_size": first["batch_size"],
        "precision": first["dtype"].removeprefix("amp:"),
        "seed": first["seed"],
        **machine,
    }
    speeds = None
    if timings:
        shape, precision = image_shape_of(base), str(common["precision"])
        speeds = Benchmark(
            tuple(timings), first["batch_size"], shape, precision, first["seed"], machine
        )
    frame = pd.DataFrame([row | common for row in rows])
    return Comparison(frame, evaluations, speeds, level, notes)


_MACHINE = (
    "device", "processor", "cores", "threads", "platform", "python", "torch", "timm", "tokenred",
)  # fmt: skip


def _evaluation(
    store: Store, found: Mapping[str, Any], dataset: ImageDataset, base: nn.Module
) -> Evaluation:
    """What a row's model made of the images, from the store."""
    from tokenred.data import balanced_subset

    predictions = store.predictions(found["key"])
    skipped: list[tuple[str, str]] = []
    if found["unreadable"]:
        count = len(dataset) if found["limit"] is None else found["limit"]
        seen = set(predictions.index.tolist())
        left_out = [i for i in balanced_subset(dataset, count, found["seed"]) if i not in seen]
        skipped = [
            (dataset.name_of(i), dataset.why_unreadable(i) or "unreadable a moment ago")
            for i in left_out
        ]
    classes = getattr(base, "num_classes", 0) or int(predictions.label.max()) + 1
    return Evaluation(
        **vars(predictions), classes=classes, skipped=tuple(skipped), seconds=found["seconds"]
    )
