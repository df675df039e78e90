"""The tables of a report: all cells, failed cells, and provenance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenred.analysis.plots.frames import FACTS, FIGURES, name_of, symbol_of
from tokenred.analysis.reports.page import Column, DataTable, Section, Value, number, plain
from tokenred.analysis.reports.source import SWEEP, Source
from tokenred.analysis.study.cell import DONE
from tokenred.analysis.study.rows import extra_columns

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["cell_table", "failures", "origins"]


_WORDS = ("strategy", "method", "model", "data", "image_size", "dtype", "compile", "threads")
# Columns of the table of cells; the others describe how a cell was produced.
_SHOWN = {
    *(n for name, figure in FIGURES.items() for n in (name, *figure.get("bounds", ()))),
    "strategy", "tokens", "status", "error", "traceback",
} - {"low", "high"}  # fmt: skip
_LONG = ("config", "key", "fingerprint")


def cell_table(source: Source, anchor: str) -> DataTable:
    """All rows of a source, sortable and searchable, with links to their provenance."""
    frame = source.frame
    names = [*source.axes, *_words(source)]
    figures = [name for name in FIGURES if name in frame and frame[name].notna().any()]
    extra = _extra(source, names)
    tokens = "tokens" in frame and bool(frame["tokens"].notna().any())
    status = _has_failures(frame)
    columns = [
        Column("#", numeric=True, help="link to the cell's provenance"),
        *(Column(symbol_of(name), numeric=_numeric(frame[name])) for name in names),
        *[Column("image tokens", help="at 0, ¼, ½, ¾ and 1 of the depth")] * tokens,
        *(
            Column(FIGURES[n]["heading"], numeric=True, help=FIGURES[n].get("help", ""))
            for n in figures
        ),
        *(Column(name.replace("_", " "), numeric=True) for name in extra),
        *[Column("status")] * status,
    ]
    rows = [
        [
            Value(str(at), at, link=f"#{anchor}-origins-{at}"),
            *(_word(row[name]) for name in names),
            *[_tokens(row.get("tokens"))] * tokens,
            *(_figure(row, name) for name in figures),
            *(number(row[name], 4) for name in extra),
            *[_status(row)] * status,
        ]
        for at, row in _numbered(frame)
    ]
    caption = "All 1 cell" if len(rows) == 1 else f"All {len(rows)} cells"
    return DataTable(f"{anchor}-cells", caption, columns, rows)


def failures(source: Source, anchor: str) -> tuple[DataTable, tuple[tuple[str, str], ...]] | None:
    """The cells without results: a table of their errors, and their tracebacks."""
    if not _has_failures(source.frame):
        return None
    failed = [(at, row) for at, row in _numbered(source.frame) if row["status"] != DONE]
    columns = [Column("#", numeric=True), Column("strategy"), Column("status"),
               Column("error", code=True)]  # fmt: skip
    rows = [
        [Value(str(at), at, link=f"#{anchor}-cells-{at}"), Value(plain(row.get("strategy"))),
         _status(row), Value(plain(row.get("error")))]
        for at, row in failed
    ]  # fmt: skip
    traces = tuple(
        (f"Traceback of cell {at}, {plain(row.get('strategy'))}", plain(row.get("traceback")))
        for at, row in failed
        if plain(row.get("traceback"))
    )
    return DataTable(f"{anchor}-failed", "Cells without results", columns, rows), traces


def origins(source: Source, anchor: str, heading: str) -> Section:
    """The provenance of the cells: what they share, and a table of what differs."""
    frame = source.frame
    own = {str(name) for name in frame.columns} - _SHOWN - set(source.axes)
    names = dict.fromkeys(n for n in (*FACTS, *map(str, frame.columns)) if n in own)
    shared = {n for n in names if len({plain(value) for value in frame[n]}) == 1}
    facts = tuple((name_of(n), plain(frame[n].iloc[0])) for n in names if n in shared)
    different = [name for name in names if name not in shared]
    columns = [Column("#", numeric=True), Column("strategy")]
    columns += [Column(name_of(name), code=name in _LONG) for name in different]
    rows = [
        [Value(str(at), at), Value(plain(row.get("strategy"))), *(_word(row[n]) for n in different)]
        for at, row in _numbered(frame)
    ]
    return Section(
        f"{anchor}-made", heading, ("Shared by all cells:",),
        tuple(fact for fact in facts if fact[1]),
        tables=(DataTable(f"{anchor}-origins", "What differs between cells", columns, rows),),
    )  # fmt: skip


def _numbered(frame: pd.DataFrame) -> list[tuple[int, dict[Any, Any]]]:
    return list(enumerate(frame.to_dict("records"), start=1))


def _has_failures(frame: pd.DataFrame) -> bool:
    return "status" in frame and bool((frame["status"] != DONE).any())


def _words(source: Source) -> list[str]:
    frame = source.frame
    names = [*_WORDS, *(["batch_size"] if source.kind == SWEEP else [])]
    there = [name for name in names if name in frame and name not in source.axes]
    return [n for n in there if n == "strategy" or frame[n].nunique(dropna=False) > 1]


def _extra(source: Source, shown: list[str]) -> list[str]:
    """Metrics that only this study has; they follow top-5."""
    if "key" not in source.frame:
        return []
    names = extra_columns([dict.fromkeys(source.frame.columns)], shown)
    return [name for name in names if name not in _SHOWN and _numeric(source.frame[name])]


def _numeric(column: pd.Series) -> bool:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return bool(is_numeric_dtype(column) and not is_bool_dtype(column) and column.notna().any())


def _word(value: Any) -> Value:
    if isinstance(value, int | float) and not isinstance(value, bool):
        # Numbers before what is missing.
        return Value(plain(value), float(value) if value == value else float("inf"))
    return Value(plain(value))


def _figure(row: dict[Any, Any], name: str) -> Value:
    shape = FIGURES[name]
    told = (shape["digits"], shape.get("signed", False))
    value = number(row[name], *told)
    ends = [number(row.get(n), *told).text for n in shape.get("bounds", ())]
    known = value.text and ends and all(ends)
    return value._replace(text=f"{value.text} [{', '.join(ends)}]") if known else value


def _tokens(value: Any) -> Value:
    counts = value if isinstance(value, tuple | list) else plain(value).split()
    if not counts:
        return Value("")
    depth = len(counts) - 1
    places = sorted({depth * quarter // 4 for quarter in range(5)})
    return Value("→".join(str(counts[at]) for at in places), float(counts[-1]))


def _status(row: dict[Any, Any]) -> Value:
    status = plain(row.get("status"))
    return Value(status, mark="" if status == DONE else "owed" if status == "skipped" else "bad")
