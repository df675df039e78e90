"""`report`: results as one HTML file: figures, cells, failures and provenance."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from tokenred.analysis.plots.frames import (
    FACTS,
    FIGURES,
    about,
    has_own_methods,
    name_of,
    symbol_of,
)
from tokenred.analysis.reports.figures import pictures_of
from tokenred.analysis.reports.page import (
    SUFFIXES,
    Cell,
    Column,
    DataTable,
    Row,
    Section,
    Value,
    figure,
    plain,
    word,
    write_page,
)
from tokenred.analysis.reports.source import OVERSMOOTHING, SWEEP, Source, read_source
from tokenred.analysis.result import count, quarters
from tokenred.analysis.study.rows import DONE, extra_columns, unused_notes
from tokenred.core.errors import ConfigError
from tokenred.core.files import check_output
from tokenred.core.lock import output_lock
from tokenred.core.values import PartOf, read

_WORDS = ("strategy", "method", "model", "data", "image_size", "dtype", "compile", "threads")
# Columns of the table of cells; the others describe how a cell was produced.
_SHOWN = {
    *(n for name, figure in FIGURES.items() for n in (name, *figure.get("bounds", ()))),
    "strategy", "tokens", "status", "error", "traceback", "unused",
} - {"low", "high"}  # fmt: skip
_LONG = ("config", "key", "fingerprint")


def report(
    sources: Any,
    path: str | Path,
    *,
    title: str | None = None,
    level: PartOf = 0.95,
    overwrite: bool = False,
) -> Path:
    """Write results as one self-contained HTML page: tables, figures and provenance.

    Args:
        sources: one or several of: the path of a study's store or of a CSV; a `Store`, `Study`,
            `Comparison`, `Sweep` or `Oversmoothing`; a frame of one of them.
        path: the output file, ending in .html.
        title: title of the page; None for model and data.
        level: level of a store's paired intervals.
        overwrite: whether to replace an existing file.

    Raises:
        ConfigError: for another suffix, or a level out of range.
        DataError: if a file cannot be read or written.
        InputError: if results are empty.
        OutputExistsError: if the file exists.
        OutputBusyError: if another process is writing the file.
    """
    read(PartOf, level, "level")
    several = isinstance(sources, Sequence) and not isinstance(sources, str)
    found = [read_source(given, level) for given in (sources if several else [sources])]
    if not found:
        raise ConfigError("expected something to report, got an empty list.")
    path = check_output(path, SUFFIXES, overwrite=overwrite)
    names = [source.name for source in found]
    if len(set(names)) < len(names):  # `compare` calls every file the same
        found = [replace(source, name=source.place or source.name) for source in found]
    with output_lock(path):
        sections = [
            section
            for at, source in enumerate(found, start=1)
            for section in sections_of(source, f"s{at}", source.name if len(found) > 1 else "")
        ]
        made_from = ", ".join(source.name for source in found)
        shared = about(*(source.frame for source in found))
        title = title or "Token reduction" + (f": {shared}" if shared else "")
        return write_page(path, title, made_from, sections)


def sections_of(
    source: Source, anchor: str, name: str = "", *, figures: bool = True
) -> Iterator[Section]:
    """The sections that report one source; anchors and headings start with `anchor` and `name`."""
    before = f"{name}: " if name else ""
    drawn, left_out = pictures_of(source) if figures else ([], [])
    notes = [source.note] if source.note else []
    if source.missing:
        notes.append(
            f"{count(source.missing, 'result')} of the study not there yet; the command that "
            "started it continues it."
        )
    notes += unused_notes(source.frame.to_dict("records"))
    if source.kind == OVERSMOOTHING:
        notes.append("One row per strategy, block and statistic, with the interval in brackets.")
    best_first = sorted(source.frame.to_dict("records"), key=_rank)
    rows = [{**row, "#": at} for at, row in enumerate(best_first, start=1)]
    failed = [row for row in rows if row.get("status", DONE) != DONE]
    table = _cells(source, anchor, rows, status=bool(failed))
    yield Section(f"{anchor}-results", f"{before}Results", notes, tables=[table])
    if drawn or left_out:
        yield Section(f"{anchor}-figures", f"{before}Figures", left_out, pictures=drawn)
    if failed:
        yield _failures(failed, anchor, f"{before}Failed cells")
    yield _origins(source, anchor, rows, f"{before}Provenance")


def _rank(row: Row) -> tuple[bool, float]:
    """The dense model, then the most accurate; in the order of the frame without accuracies."""
    top1 = row.get("top1")
    return row.get("strategy") != "dense", -top1 if top1 is not None and top1 == top1 else 0.0


def _number_in(anchor: str) -> Cell:
    """The number of a row, as a link to the same row of another table."""
    return lambda row: Value(str(row["#"]), row["#"], link=f"#{anchor}-{row['#']}")


def _cells(source: Source, anchor: str, rows: Sequence[Row], *, status: bool) -> DataTable:
    """All rows of a source, sortable and searchable, with links to their provenance."""
    frame, own = source.frame, has_own_methods(source.frame)
    words = [*source.axes, *_words(source)]
    columns = [
        Column("#", _number_in(f"{anchor}-origins"), True, help="link to the cell's provenance"),
        *(Column(symbol_of(n, own), word(n), _numeric(frame[n]), n == "strategy") for n in words),
    ]
    for name, shape in FIGURES.items():
        if name in frame and frame[name].notna().any():
            told = {key: shape[key] for key in ("digits", "signed", "bounds") if key in shape}
            cell = figure(name, **told)
            columns.append(Column(shape["heading"], cell, True, help=shape.get("help", "")))
    if "key" in frame:  # a study has metrics of its own
        extra = extra_columns([dict.fromkeys(frame.columns)], words)
        columns += [
            Column(name.replace("_", " "), figure(name, 4), True)
            for name in extra
            if name not in _SHOWN and _numeric(frame[name])
        ]
    if "tokens" in frame and frame["tokens"].notna().any():
        columns.append(Column("image tokens", _tokens, help="at 0, ¼, ½, ¾ and 1 of the depth"))
    if status:
        columns.append(Column("status", _status))
    caption = f"All {count(len(rows), 'result')}"
    if source.missing:
        caption = f"{len(rows)} of {count(len(rows) + source.missing, 'result')}"
    return DataTable(f"{anchor}-cells", caption, columns, rows)


def _failures(failed: Sequence[Row], anchor: str, heading: str) -> Section:
    """The cells without results: a table of their errors, and their tracebacks."""
    columns = [
        Column("#", _number_in(f"{anchor}-cells"), True), Column("strategy", word("strategy")),
        Column("status", _status), Column("error", word("error"), code=True),
    ]  # fmt: skip
    traces = [
        (f"Traceback of cell {row['#']}, {plain(row.get('strategy'))}", text)
        for row in failed
        if (text := plain(row.get("traceback")))
    ]
    table = DataTable(f"{anchor}-failed", "Cells without results", columns, failed)
    return Section(f"{anchor}-failures", heading, tables=[table], details=traces)


def _origins(source: Source, anchor: str, rows: Sequence[Row], heading: str) -> Section:
    """The provenance of the cells: what they share, and a table of what differs."""
    frame = source.frame
    own = {str(name) for name in frame.columns} - _SHOWN - set(source.axes)
    values = {n: [plain(v) for v in frame[n]] for n in (*FACTS, *map(str, frame)) if n in own}
    shared = {name: told[0] for name, told in values.items() if len(set(told)) == 1}
    columns = [Column("#", word("#"), True), Column("strategy", word("strategy"))]
    different = [name for name in values if name not in shared]
    columns += [Column(name_of(name), word(name), code=name in _LONG) for name in different]
    return Section(
        f"{anchor}-made", heading, ["Shared by all cells:"],
        [(name_of(name), told) for name, told in shared.items() if told],
        tables=[DataTable(f"{anchor}-origins", "What differs between cells", columns, rows)],
    )  # fmt: skip


def _words(source: Source) -> list[str]:
    """The names among the columns that tell rows apart."""
    frame = source.frame
    names = [*_WORDS, *(["batch_size"] if source.kind == SWEEP else [])]
    there = [name for name in names if name in frame and name not in source.axes]
    return [n for n in there if n == "strategy" or frame[n].nunique(dropna=False) > 1]


def _numeric(column: pd.Series) -> bool:
    return bool(is_numeric_dtype(column) and not is_bool_dtype(column) and column.notna().any())


def _tokens(row: Row) -> Value:
    value = row.get("tokens")
    told = value if isinstance(value, tuple | list) else plain(value).split()
    counts = [float(count) for count in told]
    return Value(quarters(counts), counts[-1]) if counts else Value("")


def _status(row: Row) -> Value:
    status = plain(row.get("status"))
    return Value(status, mark="" if status == DONE else "open" if status == "skipped" else "bad")
