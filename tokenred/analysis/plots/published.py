"""Published points from a CSV, to be set beside measured ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tokenred.analysis.plots.frames import choose, need, read_frame

GTP_PAPER = Path(__file__).with_name("gtp_paper_tables.csv")
"""The tables of the GTP paper, and the best settings of the authors' release notes."""
_RENAMED = {"top1_percent": "top1", "top5_percent": "top5", "model": "backbone"}
_SPEED, _GROUP = "images_per_second", "gmacs_group"


def read_published(
    source: Any,
    *,
    table: str | int | None = None,
    backbone: str | Sequence[str] | None = None,
    method: str | Sequence[str] | None = None,
    finetuned: bool | None = None,
) -> pd.DataFrame:
    """Read published points, one row per point.

    The CSV is tidy (columns ``metric`` and ``value``, one row per number; ``top1_percent``,
    ``gmacs`` and ``images_per_second_DEVICE`` are known) or wide (``top1``, ``gmacs``,
    ``images_per_second``). Both name the model in ``backbone`` (or ``model``), and may have
    ``table``, ``method``, ``finetuned`` and axes such as ``P``, ``graph``, ``theta``.

    Args:
        source: the path of the CSV, or a frame.
        table: only the points from this table of the paper.
        backbone: only the points of this model, or of several as a list.
        method: only the points of this method, or of several as a list.
        finetuned: only the points with, or without, training.

    Returns:
        The axes, then ``top1``, ``gmacs``, ``images_per_second`` and ``device``, as far as the
        source has them.

    Raises:
        DataError: if the file is missing or not a CSV.
        InputError: if columns are missing, or no point is left.
    """
    frame = read_rows(source)
    if _GROUP in frame:
        # Some tables give one cost for a row of methods.
        cost = frame["gmacs"] if "gmacs" in frame else frame[_GROUP]
        frame = frame.assign(gmacs=cost.fillna(frame[_GROUP])).drop(columns=_GROUP)
    if table is not None:
        frame = choose(frame, {"table": table})
    if finetuned is not None:
        need(frame, ["finetuned"], "choosing published points")
        # A dense model is neither.
        frame = frame[frame["finetuned"].isna() | (frame["finetuned"] == finetuned)]
    for column, wanted in (("backbone", backbone), ("method", method)):
        names = [wanted] if isinstance(wanted, str) else wanted or ()
        if names:
            frame = pd.concat([choose(frame, {column: name}) for name in dict.fromkeys(names)])
            frame = frame.sort_index()
    return frame.reset_index(drop=True)


def read_rows(source: Any) -> pd.DataFrame:
    """All published points, with the cost of a group of methods in a separate column."""
    frame = read_frame(source).rename(columns=_RENAMED)
    need(frame, ["backbone"], "a CSV of published points")
    if "metric" not in frame:
        return frame
    need(frame, ["value"], "a tidy CSV of published points")
    keys = [name for name in frame.columns if name not in ("metric", "value")]
    records: list[dict[str, Any]] = []
    for key, rows in frame.groupby(keys, dropna=False, sort=False):
        record = dict(zip(keys, key, strict=True))
        for metric, value in zip(rows["metric"], rows["value"], strict=True):
            if metric.startswith(_SPEED):
                record["device"] = metric.removeprefix(_SPEED).strip("_")
                metric = _SPEED
            record[_RENAMED.get(metric, metric)] = value
        records.append(record)
    return _spread_speeds(pd.DataFrame(records), keys)


def _spread_speeds(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Copy a speed that was printed once to both the fine-tuned and the other point."""
    if not {"finetuned", "top1", _SPEED} <= set(frame):
        return frame
    lone = frame["finetuned"].isna() & frame["top1"].isna()
    rest = [frame[name] for name in keys if name != "finetuned"]
    values = [name for name in frame.columns if name not in keys]
    spoken = frame[values].where(lone).groupby(rest, dropna=False, sort=False)
    shared = frame["top1"].groupby(rest, dropna=False, sort=False).transform("count") > 0
    frame[values] = frame[values].fillna(spoken[values].transform("first"))
    return frame[~(lone & shared)].reset_index(drop=True)


def dense_point(published: pd.DataFrame, backbone: str) -> pd.Series | None:
    """The published unreduced model: the method ``dense``, or a row that removes nothing."""
    own = published[published["backbone"] == backbone]
    dense = own["method"] == "dense"
    if "P" in own:
        dense |= own["P"] == 0
    own = own[dense].dropna(subset=["top1"])
    return None if own.empty else own.iloc[0]
