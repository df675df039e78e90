"""What the GTP paper printed: its tables, and the best settings of the authors' release notes."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tokenred.analysis.plots.published import GTP_PAPER

__all__ = ["Entry", "dense_entry", "entries", "published_csv"]

_KEYS = ("table", "backbone", "method", "P", "gmacs_group", "graph", "theta",
         "proportional_attention", "finetuned")  # fmt: skip
_METRICS = {
    "top1_percent": "top1",
    "gmacs": "gmacs",
    "images_per_second_a6000": "images_per_second",
    "best_alpha": "alpha",
}
_TRUTH = {"True": True, "False": False, "": None}


@dataclass(frozen=True)
class Entry:
    """A row of a published table.

    Attributes:
        table: its number, or ``"release-notes"``.
        backbone, method: as the paper calls them.
        P: tokens removed in a block, where it is told.
        group: GMACs of the group of methods that it stands in, where that is all that is told.
        graph: type of graph, where it is told.
        theta: share of attention kept; ``"best"`` for the best of those tried; None untold.
        log_s: with proportional attention, where it is told.
        finetuned: weights of a training with the method; None where it makes no difference.
        values: ``top1`` (percent), ``gmacs``, ``images_per_second`` (on an A6000), ``alpha`` (a
            setting, of the release notes).
    """

    table: str
    backbone: str
    method: str
    P: int | None
    group: float | None
    graph: str | None
    theta: str | None
    log_s: bool | None
    finetuned: bool | None
    values: dict[str, float] = field(default_factory=dict)


def published_csv() -> Path:
    """The file itself, to be drawn from."""
    return GTP_PAPER


@cache
def entries(table: str | None = None, backbone: str | None = None) -> tuple[Entry, ...]:
    """The published rows, in the order of the tables.

    Args:
        table: only those of it.
        backbone: likewise.
    """
    found = _read() if table is None and backbone is None else entries()
    return tuple(
        entry
        for entry in found
        if table in (None, entry.table) and backbone in (None, entry.backbone)
    )


@cache
def dense_entry(backbone: str) -> Entry | None:
    """The unreduced model, wherever it is printed."""
    rows = [e for e in entries(None, backbone) if e.method == "dense" or e.P == 0]
    return next((e for e in rows if "top1" in e.values), None)


def _read() -> Iterator[Entry]:
    found: dict[tuple[str, ...], Entry] = {}
    with published_csv().open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = tuple(row[name] for name in _KEYS)
            if key not in found:
                found[key] = _entry(row)
            found[key].values[_METRICS[row["metric"]]] = float(row["value"])
    return iter(_with_speeds(list(found.values())))


def _entry(row: dict[str, str]) -> Entry:
    return Entry(
        table=row["table"],
        backbone=row["backbone"],
        method=row["method"],
        P=int(row["P"]) if row["P"] else None,
        group=float(row["gmacs_group"]) if row["gmacs_group"] else None,
        graph=row["graph"] or None,
        theta=row["theta"] or None,
        log_s=_TRUTH[row["proportional_attention"]],
        finetuned=_TRUTH[row["finetuned"]],
    )


def _with_speeds(rows: list[Entry]) -> list[Entry]:
    """Speeds that are printed once for a method, with its rows of either weights."""
    speeds = {_place(e): e.values for e in rows if _is_speed(e)}
    rest = [e for e in rows if not _is_speed(e)]
    for entry in rest:
        entry.values.update({**speeds.get(_place(entry), {}), **entry.values})
    return rest


def _is_speed(entry: Entry) -> bool:
    return entry.finetuned is None and set(entry.values) == {"images_per_second"}


def _place(entry: Entry) -> tuple[object, ...]:
    return entry.table, entry.backbone, entry.method, entry.P, entry.group
