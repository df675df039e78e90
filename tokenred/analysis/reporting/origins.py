"""What produced the cells: what they share, and what is each one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenred.analysis.reporting.cells import SHOWN, plain
from tokenred.analysis.reporting.page import Column, DataTable, Row, Value
from tokenred.analysis.reporting.sources import Source

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["origin_table", "shared_facts"]

_NAMES = {
    "config": "strategy's configuration",
    "fingerprint": "strategy's fingerprint",
    "limit": "images at most",
    "created": "time",
    "git_commit": "commit",
    "seconds": "seconds taken",
}
# In this order; other columns follow.
_ORDER = (
    "model", "weights", "data", "images", "limit", "seed", "dtype", "precision", "batch_size",
    "fingerprint", "config", "device", "processor", "cores", "threads", "host", "platform",
    "python", "torch", "timm", "tokenred", "commit", "engine", "attempts", "seconds", "created",
    "study", "key",
)  # fmt: skip
_LONG = ("config", "key", "fingerprint")


def shared_facts(source: Source) -> tuple[tuple[str, str], ...]:
    """Names and values of what all rows have in common."""
    frame = source.frame
    return tuple(
        (_heading(name), plain(frame[name].iloc[0]))
        for name in _columns(source)
        if _is_shared(frame[name]) and plain(frame[name].iloc[0])
    )


def origin_table(source: Source, anchor: str) -> tuple[DataTable, dict[int, str]]:
    """A table of what is each row's own, and the places of its rows in the page."""
    frame = source.frame
    names = [name for name in _columns(source) if not _is_shared(frame[name])]
    columns = [Column("#", numeric=True), Column("strategy")]
    columns += [Column(_heading(name), code=name in _LONG) for name in names]
    places, rows = {}, []
    for at, row in enumerate(frame.to_dict("records")):
        places[at] = f"{anchor}-{at + 1}"
        values = [Value(str(at + 1), float(at)), Value(plain(row.get("strategy")))]
        values += [_value(row[name]) for name in names]
        rows.append(Row(tuple(values), places[at]))
    table = DataTable(anchor, "What is each cell's own", tuple(columns), tuple(rows))
    return table, places


def _columns(source: Source) -> list[str]:
    own = {str(name) for name in source.frame.columns} - SHOWN - set(source.axes)
    known = [name for name in _ORDER if name in own]
    return [*known, *(str(n) for n in source.frame.columns if n in own and n not in known)]


def _is_shared(column: pd.Series) -> bool:
    return len({plain(value) for value in column}) == 1


def _heading(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " "))


def _value(value: object) -> Value:
    numeric = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return Value(plain(value), float(value) if numeric else None)  # type: ignore[arg-type]
