"""What a report is made from: a store, a CSV, a sweep's file, or results in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenred.analysis.plots.frames import axes_of, read_frame
from tokenred.analysis.reporting.pairing import paired_frame
from tokenred.core.errors import DataError, InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OVERSMOOTHING", "RESULTS", "SWEEP", "Source", "read_source"]

RESULTS, SWEEP, OVERSMOOTHING = "results", "sweep", "oversmoothing"
_SQLITE = b"SQLite format 3\x00"
_OF_SMOOTHING = {"layer", "statistic", "mean", "low", "high"}
# No study has these; a sweep has all of them.
_OF_SWEEP = {"compile", "image_size", "speedup", "batch_size"}


@dataclass(frozen=True, eq=False)
class Source:
    """Results to report.

    Attributes:
        name: of the file, or what the results are.
        kind: `RESULTS` of a study or comparison, a `SWEEP`, or `OVERSMOOTHING` curves.
        frame: one row a result.
        axes: columns that a study varied.
        note: what the paired differences are from; empty where there are none.
    """

    name: str
    kind: str
    frame: pd.DataFrame
    axes: tuple[str, ...]
    note: str = ""


def read_source(given: Any, level: float = 0.95) -> Source:
    """Results, from whatever holds them.

    Args:
        given: the path of a study's store, a CSV or a sweep's ``.jsonl``; a `Store`, `Study`,
            `Comparison`, `Sweep` or `Oversmoothing`; or a frame.
        level: of the paired intervals of a store.

    Raises:
        DataError: for a file that is not there or cannot be read.
        InputError: for anything else, or results without a row.
        StoreError: for a database that is no store, or of a newer tokenred.
    """
    from tokenred.analysis.study.store import Store

    name = type(given).__name__.lower()
    note = ""
    if isinstance(given, str | Path):
        path = Path(given).expanduser()
        name = path.name
        given = _open(path)
    if isinstance(given, Store):
        frame, note = paired_frame(given, level)
        if frame.empty:
            raise InputError(f"{name}: the store has no results yet; run a grid on it first.")
    else:
        frame = read_frame(given)
    kind = _kind(frame)
    axes = tuple(axes_of(frame)) if kind == RESULTS else ()
    return Source(name, kind, frame.reset_index(drop=True), axes, note)


def _open(path: Path) -> Any:
    from tokenred.analysis.study.store import Store
    from tokenred.analysis.sweeps.results import Sweep

    try:
        with path.open("rb") as file:
            start = file.read(len(_SQLITE))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the path.") from error
    if start == _SQLITE or path.suffix == ".db":
        return Store(path, readonly=True)
    return Sweep.read(path) if path.suffix in (".jsonl", ".json") else path


def _kind(frame: pd.DataFrame) -> str:
    columns = set(frame.columns)
    if columns >= _OF_SMOOTHING:
        return OVERSMOOTHING
    # A sweep all of whose cells failed has no figures.
    if columns >= _OF_SWEEP - {"speedup"} and "top1" not in columns:
        return SWEEP
    return RESULTS
