"""From an experiment and a model to the cells that are run, each beside what was published."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenred.analysis.reproduction.experiments import BACKBONES, FINETUNE, Experiment
from tokenred.analysis.reproduction.published import Entry, dense_entry, entries

__all__ = ["Point", "Scale", "points_of"]

_DENSE = {"base": "dense"}
# P of GTP, and r of ToMe, at the GMACs of a group of Tables 2 and 3.
_COUNTS = {
    "DeiT-S": {3.5: 8, 3.0: 11, 2.6: 14, 2.3: 16},
    "DeiT-B": {15.3: 4, 13.1: 8, 11.6: 11, 9.8: 14, 8.8: 16},
}
_KEEP_RATES = {
    "DeiT-S": {3.5: 0.8, 3.0: 0.7, 2.6: 0.6, 2.3: 0.5},
    "DeiT-B": {15.3: 0.9, 13.1: 0.8, 11.6: 0.7, 9.8: 0.6, 8.8: 0.5},
}
_THETAS = (0.9, 0.8, 0.7, 0.6, 0.5)
_UNTOLD = "the paper does not print the setting of {} at this cost"
_LEARNED = "the predictors of DynamicViT have to be trained first"


@dataclass(frozen=True)
class Scale:
    """How counts made for one model become counts for another.

    Attributes:
        tokens, depth: image tokens and blocks of the model that is run; None for the paper's.
    """

    tokens: int | None = None
    depth: int = 1

    def count(self, P: int, backbone: str) -> int:
        """As large a share of the tokens in all blocks together; 1 at least, and what is there."""
        if self.tokens is None or not P:
            return P
        theirs = BACKBONES[backbone]
        share = P * theirs.depth / theirs.tokens
        return max(1, min(round(share * self.tokens / self.depth), (self.tokens - 1) // self.depth))


@dataclass(frozen=True)
class Point:
    """A row of an experiment.

    Attributes:
        label: the strategy.
        cells: of the grid; of several the most accurate counts.
        published: ``top1``, ``loss`` (points from the published dense model), ``gmacs``,
            ``speedup`` (over it, on an A6000), as far as they are printed.
        group: the GMACs are those of a group of methods, and not its own.
        owed: why it cannot be run; empty where it can.
        command: that makes what it needs.
    """

    label: str
    cells: tuple[Mapping[str, Any], ...] = ()
    published: Mapping[str, float] = field(default_factory=dict)
    group: bool = False
    owed: str = ""
    command: str = ""


def points_of(experiment: Experiment, backbone: str, scale: Scale | None = None) -> list[Point]:
    """The rows of an experiment on a backbone.

    Args:
        experiment: to run.
        backbone: of the paper.
        scale: for another model in its place, which has no published figures.
    """
    scale = scale or Scale()
    if experiment.axes:
        combinations = itertools.product(*experiment.axes.values())
        settings = [dict(zip(experiment.axes, values, strict=True)) for values in combinations]
        cells: list[dict[str, Any]] = [
            {"base": "gtp", **s, "P": scale.count(s["P"], backbone)} for s in settings
        ]
        return [Point("dense", (_DENSE,)), *(Point(_label(cell), (cell,)) for cell in cells)]
    rows = [entry for table in experiment.tables for entry in entries(table, backbone)]
    points = [_point(entry, experiment, scale) for entry in rows]
    if scale.tokens is None:
        return points
    # Several of the paper's counts may come to the same.
    return list({str(point.cells): point for point in points if point.cells}.values())


def _point(entry: Entry, experiment: Experiment, scale: Scale) -> Point:
    published = {} if scale.tokens is not None else _published(entry)
    cells, owed = _cells(entry, scale)
    if experiment.program:
        cells = [{**cell, "reference": True} if "P" in cell else cell for cell in cells]
    label = _label(cells[0]) if cells else f"{entry.method} at {entry.group:g} GMACs"
    if len(cells) > 1:
        label = f"{_label({k: v for k, v in cells[0].items() if k != 'theta'})}, best θ"
    if entry.finetuned:
        strategy = _written(cells[0]) if cells else entry.method
        command = FINETUNE.format(spec=BACKBONES[entry.backbone].spec, strategy=strategy)
        owed = "needs weights fine-tuned with it for 30 epochs"
        return Point(f"{label}, fine-tuned", (), published, True, owed, command)
    own_cost = "gmacs" in entry.values
    return Point(label, tuple(cells), published, not own_cost, owed)


def _cells(entry: Entry, scale: Scale) -> tuple[list[dict[str, Any]], str]:
    """What to run, or why not."""
    name = entry.backbone
    if entry.method == "dense" or entry.P == 0:
        return [dict(_DENSE)], ""
    if entry.method in ("gtp", "tome"):
        count = entry.P if entry.P is not None else _COUNTS[name][_group(entry)]
        own = scale.count(count, name)
        if entry.method == "tome":
            return [{"base": "tome", "r": own}], ""
        return _gtp(entry, count, own), ""
    if entry.method == "evit":
        return [{"base": "evit", "keep_rate": _KEEP_RATES[name][_group(entry)]}], ""
    return [], _LEARNED if entry.method == "dynamicvit" else _UNTOLD.format(entry.method)


def _gtp(entry: Entry, count: int, own: int) -> list[dict[str, Any]]:
    cell: dict[str, Any] = {"base": "gtp", "P": own, **_best_setting(entry.backbone, count)}
    if entry.graph is not None:
        cell["graph"] = entry.graph
    if entry.log_s is not None:
        cell["proportional_attention"] = entry.log_s
    if entry.theta == "best":
        return [{**cell, "theta": theta} for theta in _THETAS]
    if entry.theta is not None:
        cell["theta"] = float(entry.theta)
    return [cell]


def _best_setting(backbone: str, P: int) -> dict[str, float]:
    """θ and α that the paper's tables were made with, as far as that is known.

    DeiT-B: the release notes. DeiT-S: θ = 0.6, with which Table 5 has the accuracies of Table 1 to
    0.1 points. Other models: the defaults.
    """
    for entry in entries("release-notes", backbone):
        if entry.P == P:
            return {"theta": float(entry.theta or 1), "alpha": entry.values["alpha"]}
    return {"theta": 0.6} if backbone == "DeiT-S" else {}


def _published(entry: Entry) -> dict[str, float]:
    found = {k: v for k, v in entry.values.items() if k in ("top1", "gmacs")}
    if "gmacs" not in found and entry.group is not None:
        found["gmacs"] = entry.group
    dense = dense_entry(entry.backbone)
    if dense is not None and entry.P != 0 and entry.method != "dense":
        if "top1" in found:
            found["loss"] = round(found["top1"] - dense.values["top1"], 2)
        if "images_per_second" in entry.values and "images_per_second" in dense.values:
            speeds = entry.values["images_per_second"], dense.values["images_per_second"]
            found["speedup"] = speeds[0] / speeds[1]
    return found


def _group(entry: Entry) -> float:
    assert entry.group is not None
    return entry.group


def _written(cell: Mapping[str, Any]) -> str:
    """A cell as one writes a strategy on the command line."""
    told = ",".join(f"{name}={value}" for name, value in cell.items() if name != "base")
    return f"{cell['base']}:{told}" if told else str(cell["base"])


def _label(cell: Mapping[str, Any]) -> str:
    return _written(cell).replace("proportional_attention", "log_s")
