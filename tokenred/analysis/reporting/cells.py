"""The table of all cells, and of those that failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenred.analysis.plots.frames import show_value, symbol_of
from tokenred.analysis.reporting.page import Column, DataTable, Row, Value, number
from tokenred.analysis.reporting.sources import SWEEP, Source

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SHOWN", "cell_table", "failures", "is_missing", "plain"]

DONE = "done"


@dataclass(frozen=True)
class _Figure:
    """How a column of numbers is shown, with the columns of its interval."""

    heading: str
    digits: int
    bounds: tuple[str, str] | None = None
    signed: bool = False
    help: str = ""


_GAP = ("difference_low", "difference_high")
_SPEED = ("speedup_low", "speedup_high")
_REALISED = ("realised_low", "realised_high")
_FIGURES = {
    "gmacs": _Figure("GMACs", 3, help="of one image"),
    "gmacs_share": _Figure("of dense", 3, help="share of the dense model's GMACs"),
    "overhead_gmacs": _Figure("overhead", 4, help="GMACs spent on choosing, not counted in GMACs"),
    "images_per_second": _Figure("images/s", 1),
    "speedup": _Figure("speed-up [90%]", 2, _SPEED, help="measured, over the dense model"),
    "allowed": _Figure("allowed", 2, help="speed-up that the GMACs allow"),
    "realised": _Figure("realised", 2, _REALISED, help="measured ÷ allowed speed-up"),
    "top1": _Figure("top-1 %", 2),
    "top5": _Figure("top-5 %", 2),
    "difference": _Figure("difference, points", 2, _GAP, signed=True, help="paired, same images"),
    "p_value": _Figure("p", 4, help="of McNemar's exact test"),
    "mean": _Figure("mean", 4, ("low", "high")),
}
_WORDS = ("strategy", "method", "model", "data", "image_size", "dtype", "compile", "threads")
_ALWAYS = ("strategy",)
_SWEEP_FIRST = ("batch_size",)
# What the table of cells shows; the rest says what produced a cell.
SHOWN = {
    *_FIGURES, *_GAP, *_SPEED, *_REALISED, "strategy", "tokens", "status", "error", "traceback",
}  # fmt: skip


def cell_table(source: Source, anchor: str, places: Mapping[int, str]) -> DataTable:
    """Every row of a source, to be sorted and searched.

    Args:
        source: of results or a sweep.
        anchor: name of the table in the page.
        places: by row, where the page says what produced it.
    """
    frame = source.frame
    names = [*source.axes, *_words(source)]
    figures = [name for name in _FIGURES if name in frame and frame[name].notna().any()]
    extra = _extra(source, names)
    columns = [Column("#", numeric=True, help="leads to what produced the cell")]
    columns += [Column(symbol_of(name), numeric=_numeric(frame[name])) for name in names]
    tokens = "tokens" in frame and bool(frame["tokens"].notna().any())
    columns += [Column("image tokens", help="at 0, ¼, ½, ¾ and 1 of the depth")] * tokens
    for name in figures:
        shape = _FIGURES[name]
        columns.append(Column(shape.heading, numeric=True, help=shape.help))
    columns += [Column(name.replace("_", " "), numeric=True) for name in extra]
    status = "status" in frame and bool((frame["status"] != DONE).any())
    columns += [Column("status")] * status
    rows = []
    for at, row in enumerate(frame.to_dict("records")):
        values = [Value(str(at + 1), float(at), link=f"#{places[at]}" if at in places else "")]
        values += [_word(row[name]) for name in names]
        values += [_tokens(row.get("tokens"))] * tokens
        values += [_figure(row, name) for name in figures]
        values += [number(_real(row[name]), 4) for name in extra]
        values += [_status(row)] * status
        rows.append(Row(tuple(values), f"{anchor}-row-{at + 1}"))
    count = "1 cell" if len(rows) == 1 else f"{len(rows)} cells"
    return DataTable(anchor, f"All {count}", tuple(columns), tuple(rows))


def failures(source: Source, anchor: str) -> tuple[DataTable | None, tuple[tuple[str, str], ...]]:
    """The cells that have no figures: a table of their errors, and their tracebacks."""
    frame = source.frame
    if "status" not in frame or not (frame["status"] != DONE).any():
        return None, ()
    rows, traces = [], []
    for at, row in enumerate(frame.to_dict("records")):
        if row["status"] == DONE:
            continue
        strategy, trace = plain(row.get("strategy")), plain(row.get("traceback"))
        link = f"#{source_anchor(anchor)}-row-{at + 1}"
        cells = (Value(str(at + 1), float(at), link=link), Value(strategy), _status(row))
        rows.append(Row((*cells, Value(plain(row.get("error"))))))
        if trace:
            traces.append((f"Traceback of cell {at + 1}, {strategy}", trace))
    columns = (Column("#", numeric=True), Column("strategy"), Column("status"),
               Column("error", code=True))  # fmt: skip
    return DataTable(anchor, "Cells without figures", columns, tuple(rows)), tuple(traces)


def source_anchor(anchor: str) -> str:
    """The table of cells that belongs to a table of failures."""
    return anchor.replace("failed", "cells")


def is_missing(value: Any) -> bool:
    """Whether a frame has nothing at a place."""
    return value is None or (isinstance(value, float) and value != value)


def plain(value: Any) -> str:
    """A value of a frame as text; empty where it is missing."""
    return "" if is_missing(value) else show_value(value)


def _words(source: Source) -> list[str]:
    frame = source.frame
    names = [*_WORDS, *(_SWEEP_FIRST if source.kind == SWEEP else ())]
    there = [name for name in names if name in frame and name not in source.axes]
    return [name for name in there if name in _ALWAYS or frame[name].nunique(dropna=False) > 1]


def _extra(source: Source, shown: list[str]) -> list[str]:
    """Numbers of metrics that only this study has: they come right behind top-5."""
    from tokenred.analysis.study.frame import extra_columns

    if "key" not in source.frame:
        return []
    records: list[dict[str, Any]] = [dict.fromkeys(source.frame.columns)]
    names = [name for name in extra_columns(records, shown) if name not in SHOWN]
    return [name for name in names if _numeric(source.frame[name])]


def _numeric(column: pd.Series) -> bool:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return bool(is_numeric_dtype(column) and not is_bool_dtype(column) and column.notna().any())


def _real(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _word(value: Any) -> Value:
    if isinstance(value, int | float) and not isinstance(value, bool):
        # Numbers before what is missing.
        return Value(plain(value), float("inf") if is_missing(value) else float(value))
    return Value(plain(value))


def _figure(row: Mapping[Any, Any], name: str) -> Value:
    shape = _FIGURES[name]
    value = number(_real(row[name]), shape.digits, shape.signed)
    if not value.text or shape.bounds is None:
        return value
    low, high = (number(_real(row.get(n)), shape.digits, shape.signed).text for n in shape.bounds)
    return Value(f"{value.text} [{low}, {high}]", value.order) if low and high else value


def _tokens(value: Any) -> Value:
    counts = plain(value).split()
    if not counts:
        return Value("")
    depth = len(counts) - 1
    places = sorted({depth * quarter // 4 for quarter in range(5)})
    return Value("→".join(counts[at] for at in places), _real(float(counts[-1])))


def _status(row: Mapping[Any, Any]) -> Value:
    status = plain(row.get("status"))
    return Value(status, mark="" if status == DONE else "owed" if status == "skipped" else "bad")
