"""Paired differences for the rows of a store, from the predictions that it kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenred.analysis.study.cell import DONE
from tokenred.analysis.study.differences import Differences

if TYPE_CHECKING:
    import pandas as pd

    from tokenred.analysis.study.store import Store

__all__ = ["paired_frame"]

_DENSE = "dense"
# Rows that share these were run on the same images with the same weights.
_SETTING = ("model", "weights", "data", "image_limit", "seed", "dtype")
_SETTING_AXES = {"model", "data", "dtype", "limit", "seed", "base"}


def paired_frame(store: Store, level: float = 0.95) -> tuple[pd.DataFrame, str]:
    """The frame of a store with ``difference``, its interval and ``p_value``.

    Each row is compared with the dense model in its setting; without one, with the base that the
    grid started from.

    Args:
        store: of a study.
        level: of the intervals.

    Returns:
        The frame, differences in percentage points, and a line that says what they are from.
    """
    frame = store.frame()
    if frame.empty:
        return frame, ""
    rows = list(store.rows())
    references, which = _references(rows)
    differences, found = Differences(store, level), []
    for row in rows:
        reference = references.get(_setting(row))
        # A difference from itself says nothing.
        known = row["status"] == DONE and reference is not None and row["key"] != reference
        found.append(differences(row["key"], str(reference)) if known else {})
    if not any(found):
        return frame, ""
    for name in ("difference", "difference_low", "difference_high", "p_value"):
        frame[name] = [values.get(name) for values in found]
    note = (
        f"Differences are from the {which} in the same setting, in percentage points, on the same "
        f"images: {level:.0%} paired intervals, and the p-value of McNemar's exact test."
    )
    return frame, note


def _references(rows: list[dict[str, Any]]) -> tuple[dict[tuple[Any, ...], str], str]:
    done = [row for row in rows if row["status"] == DONE]
    dense = {_setting(row): row["key"] for row in done if row["method"] == _DENSE}
    if dense:
        return dense, "dense model"
    bases = [row for row in done if set(row["axes"]) <= _SETTING_AXES]
    return {_setting(row): row["key"] for row in bases}, "grid's base"


def _setting(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in _SETTING)
