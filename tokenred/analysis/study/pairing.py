"""All rows of a store, each compared with what its grid compared it with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenred.analysis.result import reference_name
from tokenred.analysis.study.rows import DENSE, DONE, record, tidy
from tokenred.analysis.study.store import Store
from tokenred.core.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_SQLITE = b"SQLite format 3\x00"
# Rows with equal values in these ran on the same images with the same weights.
_SETTING = ("model", "weights", "data", "limit", "seed", "dtype")
_SETTING_AXES = {"model", "data", "dtype", "limit", "seed", "base"}


def is_store(path: Path) -> bool:
    """Whether a file is the store of a grid, not a CSV."""
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE or path.suffix == ".db"
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the path.") from error


def paired_frame(store: Store, level: float = 0.95) -> tuple[pd.DataFrame, str]:
    """The results of a store with paired differences, in points, and a note on the reference.

    A row per cell: cells that share a result have a row each, as in the frame of their study.
    Each row is compared with what its grid compared it with. If that was nothing, or several grids
    differ, with the dense model in its setting or, if there is none, with the base of the grid.
    """
    rows = list(_rows_of_cells(store))
    axes = list(dict.fromkeys(name for row in rows for name in row["axes"]))
    frame = tidy(list(map(record, rows)), axes)
    done = [row for row in rows if row["status"] == DONE]
    names = {row["key"]: row["strategy"] for row in done}
    pairs = store.references()
    chosen = [row for row in done if row["method"] == DENSE]
    if not chosen and not pairs:
        chosen = [row for row in done if set(row["axes"]) <= _SETTING_AXES]
    common = {_setting(row): row["key"] for row in chosen}
    asked: dict[str, set[str]] = {}
    for key, other in pairs:
        asked.setdefault(key, set()).add(other)
    found, words = [], dict[str, None]()
    for row in rows:
        key, reference = row["key"], common.get(_setting(row))
        own = asked.get(key, set()) & names.keys()
        if len(own) == 1:
            (reference,) = own
        gap = dict[str, Any]()
        # A difference from itself is meaningless.
        if row["status"] == DONE and reference is not None and key != reference:
            gap = store.difference(key, reference, level)
        if gap:
            gap |= {"difference_from": names[str(reference)], "difference_level": level}
            words[gap["difference_from"]] = None
        found.append(gap)
    if not any(found):
        return frame, ""
    for at, row in enumerate(rows):  # which figures draw as lines
        if not found[at] and row["strategy"] in words:
            found[at] = {"difference_from": row["strategy"], "difference_level": level}
    for name in dict.fromkeys(name for values in found for name in values):
        frame[name] = [values.get(name) for values in found]
    told = reference_name(words) or "other strategies, which the results name"
    told = "the dense model" if told == DENSE else told
    return frame, (
        f"Differences are from {told} in the same setting, in percentage points, on the same "
        f"images: {level:.0%} paired intervals, and the p-value of McNemar's exact test."
    )


def _rows_of_cells(store: Store) -> Iterator[dict[str, Any]]:
    """The rows of a store; one for each cell where several share a result."""
    planned = store.cells()
    for row in store.rows():
        cells = {
            json.dumps(cell["axes"]): cell
            for cell in planned.get(row["key"], ())
            if cell["axes"].keys() == row["axes"].keys()
        }
        yield from ({**row, **cell} for cell in list(cells.values()) or [{}])


def _setting(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in _SETTING)
