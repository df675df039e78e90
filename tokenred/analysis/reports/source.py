"""The sources of a report: a store, a CSV, or results in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tokenred.analysis.plots.frames import axes_of, read_frame
from tokenred.analysis.study.pairing import is_store, paired_frame
from tokenred.analysis.study.store import Store
from tokenred.core.errors import InputError

RESULTS, SWEEP, OVERSMOOTHING = "results", "sweep", "oversmoothing"


@dataclass(frozen=True, eq=False)
class Source:
    """Results to report.

    Attributes:
        name: the file name, or the kind of results.
        kind: `RESULTS` of a study or comparison, a `SWEEP`, or `OVERSMOOTHING` curves.
        frame: one row per result.
        axes: columns that a study varied.
        note: the reference of the paired differences; empty if there are none.
        missing: how many planned results are not there yet.
        place: the file as it was given; empty for results in memory.
    """

    name: str
    kind: str
    frame: pd.DataFrame
    axes: tuple[str, ...]
    note: str = ""
    missing: int = 0
    place: str = ""


def read_source(given: Any, level: float = 0.95) -> Source:
    """Read results from any source that `tokenred.analysis.report` accepts."""
    name, note, missing, place = type(given).__name__.lower(), "", 0, ""
    if isinstance(given, str | Path):
        place = str(given)
        path = Path(given).expanduser()
        name = path.name
        given = Store(path, readonly=True) if is_store(path) else path
    if isinstance(given, Store):
        frame, note = paired_frame(given, level)
        missing = given.missing()
        if frame.empty:
            raise InputError(f"{name}: the store has no results yet; run a grid on it first.")
    else:
        frame = read_frame(given)
    kind = _kind(frame)
    axes = tuple(axes_of(frame)) if kind == RESULTS else ()
    return Source(name, kind, frame.reset_index(drop=True), axes, note, missing, place)


def _kind(frame: pd.DataFrame) -> str:
    if {"layer", "statistic", "mean", "low", "high"} <= set(frame):
        return OVERSMOOTHING
    if not {"compile", "image_size", "batch_size"} <= set(frame):
        return RESULTS
    # A sweep has no accuracies; if all its cells failed, it has no speeds either.
    top1, speedup = (name in frame and frame[name].notna().any() for name in ("top1", "speedup"))
    return SWEEP if not top1 and (speedup or "top1" not in frame) else RESULTS
