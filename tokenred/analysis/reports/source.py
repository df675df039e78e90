"""The sources of a report: a store, a CSV, or results in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tokenred.analysis.plots.frames import axes_of, read_frame
from tokenred.analysis.result import reference_name
from tokenred.analysis.study.cell import DONE
from tokenred.analysis.study.store import Store
from tokenred.core.errors import DataError, InputError

RESULTS, SWEEP, OVERSMOOTHING = "results", "sweep", "oversmoothing"
_SQLITE = b"SQLite format 3\x00"
# Rows with equal values in these ran on the same images with the same weights.
_SETTING = ("model", "weights", "data", "limit", "seed", "dtype")
_SETTING_AXES = {"model", "data", "dtype", "limit", "seed", "base"}


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
    """

    name: str
    kind: str
    frame: pd.DataFrame
    axes: tuple[str, ...]
    note: str = ""
    missing: int = 0


def read_source(given: Any, level: float = 0.95) -> Source:
    """Read results from any source that `tokenred.analysis.report` accepts."""
    name, note, missing = type(given).__name__.lower(), "", 0
    if isinstance(given, str | Path):
        path = Path(given).expanduser()
        name = path.name
        given = Store(path, readonly=True) if _is_store(path) else path
    if isinstance(given, Store):
        frame, note = _paired_frame(given, level)
        missing = given.missing()
        if frame.empty:
            raise InputError(f"{name}: the store has no results yet; run a grid on it first.")
    else:
        frame = read_frame(given)
    kind = _kind(frame)
    axes = tuple(axes_of(frame)) if kind == RESULTS else ()
    return Source(name, kind, frame.reset_index(drop=True), axes, note, missing)


def _is_store(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE or path.suffix == ".db"
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the path.") from error


def _kind(frame: pd.DataFrame) -> str:
    if {"layer", "statistic", "mean", "low", "high"} <= set(frame):
        return OVERSMOOTHING
    if not {"compile", "image_size", "batch_size"} <= set(frame):
        return RESULTS
    # A sweep has no accuracies; if all its cells failed, it has no speeds either.
    top1, speedup = (name in frame and frame[name].notna().any() for name in ("top1", "speedup"))
    return SWEEP if not top1 and (speedup or "top1" not in frame) else RESULTS


def _paired_frame(store: Store, level: float) -> tuple[pd.DataFrame, str]:
    """The frame of a store with paired differences, in points, and a note on the reference.

    Each row is compared with what its grid compared it with. If that was nothing, or several grids
    differ, with the dense model in its setting or, if there is none, with the base of the grid.
    """
    frame, rows = store.frame(), list(store.rows())
    done = [row for row in rows if row["status"] == DONE]
    names = {row["key"]: row["strategy"] for row in done}
    pairs = store.references()
    which, chosen = "the dense model", [row for row in done if row["method"] == "dense"]
    if not chosen and not pairs:
        which, chosen = "the grid's base", [r for r in done if set(r["axes"]) <= _SETTING_AXES]
    common = {_setting(row): row["key"] for row in chosen}
    asked: dict[str, set[str]] = {}
    for key, other in pairs:
        asked.setdefault(key, set()).add(other)
    found, words = [], dict[str, None]()
    for row in rows:
        key, reference = row["key"], common.get(_setting(row))
        own = asked.get(key, set()) & names.keys()
        if named := len(own) == 1 and reference not in own:
            (reference,) = own
        # A difference from itself is meaningless.
        known = row["status"] == DONE and reference is not None and key != reference
        gap: dict[str, Any] = store.difference(key, str(reference), level) if known else {}
        if gap and named:
            gap |= {"difference_from": names[str(reference)], "difference_level": level}
        words |= dict.fromkeys([gap.get("difference_from", which)] if gap else ())
        found.append(gap)
    if not any(found):
        return frame, ""
    for at, row in enumerate(rows):  # which figures draw as lines
        if not found[at] and row["strategy"] in words:
            found[at] = {"difference_from": row["strategy"], "difference_level": level}
    for name in dict.fromkeys(name for values in found for name in values):
        frame[name] = [values.get(name) for values in found]
    told = reference_name(words) or "other strategies, which the results name"
    return frame, (
        f"Differences are from {told} in the same setting, in percentage points, on the same "
        f"images: {level:.0%} paired intervals, and the p-value of McNemar's exact test."
    )


def _setting(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in _SETTING)
