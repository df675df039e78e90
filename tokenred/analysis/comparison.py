"""Compare strategies: cost, speed against the dense model, and accuracy on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from annotated_types import Ge
from rich.table import Table
from torch import nn

from tokenred.analysis.baseline_models import Baseline, baselines_beside
from tokenred.analysis.lineup import DENSE, Strategies, named_specs, wrap_specs
from tokenred.analysis.measure.inputs import open_for
from tokenred.analysis.measure.machine import base_of, cpu_threads, name_of
from tokenred.analysis.measure.speed import Timing
from tokenred.analysis.result import (
    Columns,
    FramedResult,
    count,
    figure_columns,
    figure_notes,
    quarters,
    reference_name,
    resolution,
    table_of,
)
from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.refs import DataRef, ModelRef, read_data
from tokenred.analysis.study.rows import unused_notes
from tokenred.analysis.study.store import Store
from tokenred.analysis.study.study import Study, paired
from tokenred.core.tensors import check_device
from tokenred.core.values import Count, Magnitude, PartOf, Size, checked
from tokenred.data import ImageDataset, balanced_subset
from tokenred.data.classes import ClassMap
from tokenred.strategies.specs import METHODS, Spec, StrategyLike, same_budget

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TRACE = "image tokens at 0, ¼, ½, ¾, 1\nof the depth"
_COMMON = (
    "weights", "batch_size", "seed", "device", "processor", "cores", "threads", "platform",
    "python", "torch", "timm", "tokenred",
)  # fmt: skip
_DIFFERENCE = (
    "difference", "difference_low", "difference_high", "p_value", "difference_from",
    "difference_level",
)  # fmt: skip
_FIGURES = [field.name for field in fields(Timing) if field.name not in ("name", "batch_size")]

Record = Mapping[str, Any]


class Comparison(FramedResult):
    """A comparison of strategies; ``print`` shows the table.

    Attributes:
        frame: one row per strategy, the dense model first. ``tokens`` counts image tokens, at the
            start and after each block; ``top1``, ``top5`` are in percent, ``difference`` and its
            interval in percentage points from ``difference_from``; ``budget`` is the share of the
            dense model's GMACs that a row may cost; ``ms`` is per batch, of the
            row's own runs alone; ``images_per_second`` is dense's × the speed-up. Each row records
            what determines it: strategy (``config``, ``fingerprint``), weights, seed, versions,
            machine; ``key`` is its key in the store.
        level: level of the paired intervals.
        notes: lines to print below the table.
    """

    def table(self, title: str | None = None) -> Table:
        """The frame for a terminal."""
        rows: list[Any] = self.frame.to_dict("records")
        columns: Columns = {
            "strategy": lambda row: str(row["strategy"]),
            _TRACE: lambda row: quarters(row["tokens"]),
            **figure_columns(rows, self._against, self.level, brief=True),
        }
        return table_of(columns, rows, title=title or self.about, left=2, detail=_TRACE)

    @property
    def _against(self) -> str:
        """What the accuracies differ from, in words."""
        if "difference_from" not in self.frame:
            return DENSE
        return reference_name(self.frame["difference_from"].dropna())

    def footnotes(self) -> list[str]:
        """How the table was measured, and what was skipped."""
        rows: list[Any] = self.frame.to_dict("records")
        first, lines = rows[0], figure_notes(rows)
        if "speedup" in first:
            lines.append(
                f"Batch {first['batch_size']}, {first['precision']}; dense itself shows the noise. "
                "Images a second: those of the dense model × the speed-up."
            )
        if "top1" in first:
            lines.append(f"Accuracy: {count(first['images'], 'image')}, the same for all rows.")
        lines.append(
            f"tokenred {first['tokenred']}, torch {first['torch']}, timm {first['timm']}, "
            f"seed {first['seed']}, weights {first['weights']}."
        )
        return [*lines, *self.notes, *filter(None, [resolution(rows, self.level)])]

    def plot(self, **options: Any) -> Figure:
        """See `tokenred.analysis.tradeoff`."""
        from tokenred.analysis.plots.tradeoff import tradeoff

        return tradeoff(self.frame, **options)


@checked
def compare(
    model: nn.Module,
    data: str | Path | ImageDataset | None,
    strategies: Strategies | None = None,
    *,
    budget: PartOf | Sequence[PartOf] = (),
    against: StrategyLike = "dense",
    limit: Size | None = None,
    batch_size: Size = 32,
    workers: Count = 0,
    timing: bool = True,
    pairs: Annotated[int, Ge(2)] = 9,
    warmup: Count = 2,
    max_seconds: Magnitude | None = None,
    threads: Size | None = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    channels_last: bool = False,
    baselines: bool | Sequence[float] = False,
    smaller: nn.Module | str | None = None,
    seed: Count = 0,
    level: PartOf = 0.95,
    split: str | None = None,
    class_map: ClassMap = None,
    name: str | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
) -> Comparison:
    """Compare a dense model with strategies, on the same images and the same machine.

    A grid (`tokenred.analysis.Grid`) with a row for each strategy. All strategies are applied, and
    the data is opened, before anything is measured. The dense model is the first row; its speed-up
    is over itself, which shows the noise. A strategy that cannot cost as little as its budget says
    is left out, and a note says why.

    Args:
        model: a dense model, or a `ReducedViT`, whose base is then used.
        data: see `tokenred.analysis.evaluate`; None to measure speed only.
        strategies: as for `tokenred.analysis.parse_spec`, or a mapping from labels to strategies;
            None for five methods.
        budget: run every strategy at this share of the dense model's GMACs, or at each of several
            (`same_budget`); by default their own schedules, or 0.85 and 0.65 for the five methods.
        against: the strategy from which accuracies differ, paired by image; a row of its own at
            each row's budget, or at the budget that it has (``"gtp@0.65"``).
        limit: maximum number of images.
        batch_size: images in a batch, for both measurements.
        workers: processes that load images.
        timing: also measure speed.
        pairs: timed runs of each strategy, each right after one of the dense model.
        warmup: number of uncounted pairs before those.
        max_seconds: fewer pairs, but at least 3, for a strategy that takes longer.
        threads: CPU threads of PyTorch; fewer can be faster on a shared machine.
        seed: for choosing images, timing inputs and bootstrap samples.
        device, amp, split, class_map: as in `evaluate` and `benchmark`.
        channels_last: store images and convolution weights as NHWC.
        baselines: also compare with the baselines that any method must beat
            (`tokenred.analysis.baselines`), at the cost of each strategy, or at these shares of the
            dense model's GMACs. Notes below the table say which are not available.
        smaller: also this model (or its name), for the same images and classes.
        level: of the paired intervals.
        name: name of the model, for the title; by default the one that `load_model` takes.
        store: keeps each row as soon as it is measured. What it contains is not measured again, so
            a stopped comparison can be continued.
        progress: show progress on standard error.

    Raises:
        TokenredError: as `parse_spec`, `tokenred.wrap`, `evaluate` and `benchmark` raise them.
        ScheduleError: if no strategy can meet its budget.
        StudyInterruptedError: if the user stops it (Ctrl-C).
    """
    base = base_of(model)
    target = None if device is None else check_device(device)
    specs = named_specs(METHODS if strategies is None else strategies)
    other = next((spec for spec in specs if spec.label == against), None)
    chosen = [other] if other else named_specs([against])
    if budget or strategies is None:
        specs = same_budget(budget or (0.85, 0.65), specs)
    specs, references = _with_references(specs, *chosen)
    reduced, left_out = wrap_specs(base, specs)
    specs = [spec for spec in specs if spec.label in reduced]
    others, notes = baselines_beside(base, specs, reduced, baselines, smaller)
    dataset = None
    if data is not None:
        dataset = open_for(base, data, split=split, class_map=class_map)
    speed = {"name": "speed", "pairs": pairs, "warmup": warmup, "max_seconds": max_seconds}
    grid = Grid(
        cells=[{"base": DENSE}, *({"base": spec} for spec in specs), *map(_cell, others)],
        model=base,
        data=None if dataset is None else _reference(data, dataset, split, class_map),
        metrics=[*[speed] * timing, *["accuracy", "mean_cost"] * (dataset is not None)],
        against=DENSE,
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
        entries = [(DENSE, DENSE, None), *((s.label, s.method, s.share) for s in specs)]
        entries += [(other.label, other.kind, other.share) for other in others]
        configs = {other.label: other.config for other in others if other.kind != "uniform"}
        rows = [
            _row(label, method, found, study.records[0], configs) | {"budget": share}
            for (label, method, share), found in zip(entries, study.records, strict=True)
        ]
        alone = _compare_with(study.store, rows, references, level) if references else ()
        import pandas as pd

        frame = pd.DataFrame(rows).assign(
            model=name or name_of(base), data="" if dataset is None else dataset.name
        )
        told = [] if dataset is None else [*study.doubts(), *_skipped(study, dataset)]
    return Comparison(frame, level, (*told, *left_out, *alone, *notes, *unused_notes(rows)))


def _with_references(
    specs: Sequence[Spec], start: Spec | None = None
) -> tuple[list[Spec], dict[str, str]]:
    """The rows, with those that others are compared with; and the reference of each by label."""
    found, references = list(specs), dict[str, str]()
    if start is None:
        return found, references
    for spec in specs:
        share = spec.share if start.share is None else start.share
        at = "" if share == start.share else f"@{share:g}"
        own = replace(start, label=start.label + at, share=share)
        known = (s for s in found if (s.strategy, s.share) == (own.strategy, share))
        if (other := next(known, None)) is None:
            found.insert(0, other := own)
        references |= {spec.label: other.label, other.label: other.label}
    return found, references


def _compare_with(
    store: Store, rows: list[dict[str, Any]], references: Mapping[str, str], level: float
) -> list[str]:
    """Replace the differences from dense; a baseline's is from the reference at its share.

    Returns:
        A line about the rows whose reference was left out, if there are any.
    """
    keys = {row["strategy"]: row["key"] for row in rows}
    shares = {label.rpartition("@")[2]: label for label in references.values()}
    only = next(iter(shares.values())) if len(shares) == 1 else ""
    for row in rows:
        for name in _DIFFERENCE:
            row.pop(name, None)
        share = row["strategy"].rpartition("@")[2]
        other = references.get(row["strategy"], only or shares.get(share, ""))
        if other in keys:
            row |= paired(store, row, keys[other], other, level)
    alone = [name for name, other in references.items() if name in keys and other not in keys]
    return [f"No difference for {', '.join(alone)}, whose reference was left out."] if alone else []


def _cell(other: Baseline) -> dict[str, Any]:
    """The cell of a baseline."""
    if other.kind == "uniform":
        return {"base": Spec(other.label, other.kind, other.reduced.strategy)}
    return {"base": DENSE, "model": ModelRef(other.label, module=other.model)}


def _reference(
    data: Any, dataset: ImageDataset, split: str | None, class_map: ClassMap
) -> DataRef | ImageDataset:
    """The dataset with the base's own preprocessing, for all models."""
    if isinstance(data, ImageDataset):
        return dataset
    return DataRef(dataset.name, read_data(data, split, class_map).arguments, dataset)


def _row(
    label: str, method: str, found: Record, dense: Record, configs: Mapping[str, str]
) -> dict[str, Any]:
    """A row of the frame, from those of the grid for the strategy and the dense model.

    ``configs`` say what determines the baselines that are not strategies.
    """
    row: dict[str, Any] = {"strategy": label, "method": method, "key": found["key"]}
    row |= {n: found.get(f"mean_{n}", found[n]) for n in ("tokens", "gmacs", "overhead_gmacs")}
    row["gmacs_share"] = row["gmacs"] / dense["gmacs"]
    row |= {n: found[n] for n in _FIGURES if n in found and n not in row}
    if "speedup" in found and label != DENSE:  # which was measured in pairs
        row["images_per_second"] = dense["images_per_second"] * row["speedup"]
    if "top1" in found:
        row |= {name: found[name] for name in ("top1", "top5", "images")}
        row["skipped"] = found["unreadable"]
        row |= {n: found[n] for n in _DIFFERENCE if n in found}
    own = label != DENSE and label not in configs
    row["fingerprint"] = found["fingerprint"] if own else ""
    row["config"] = found["config"] if own else configs.get(label, "")
    row["unused"] = found["unused"] if own else ""
    row["precision"] = dense["dtype"].removeprefix("amp:")
    return row | {name: dense[name] for name in _COMMON if name in dense}


def _skipped(study: Study, dataset: ImageDataset) -> list[str]:
    """A line about the images that could not be read."""
    first = study.records[0]
    if not (number := first["unreadable"]):
        return []
    wanted = len(dataset) if first["limit"] is None else first["limit"]
    seen = set(study.store.predictions(first["key"]).index.tolist())
    left_out = [i for i in balanced_subset(dataset, wanted, first["seed"]) if i not in seen]
    shown = "; ".join(
        f"{dataset.name_of(i)} ({dataset.why_unreadable(i) or 'unreadable a moment ago'})"
        for i in left_out[:5]
    )
    more = f"; and {number - 5} more" if number > 5 else ""
    return [f"Skipped: {count(number, 'unreadable image')}: {shown}{more}."]
