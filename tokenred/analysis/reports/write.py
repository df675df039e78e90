"""`report`: write results as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenred.analysis.reports.cell_tables import cell_table, failures, origins
from tokenred.analysis.reports.figures import pictures_of
from tokenred.analysis.reports.page import SUFFIXES, Page, Section, write_page
from tokenred.analysis.reports.source import OVERSMOOTHING, Source, read_source
from tokenred.core.errors import ConfigError
from tokenred.core.files import check_output
from tokenred.core.lock import output_lock
from tokenred.core.values import PartOf, read

__all__ = ["report", "sections_of"]


def report(
    sources: Any,
    path: str | Path,
    *,
    title: str | None = None,
    level: float = 0.95,
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
    path = check_output(path, SUFFIXES, overwrite=overwrite)
    read(PartOf, level, "level")
    several = isinstance(sources, Sequence) and not isinstance(sources, str)
    with output_lock(path):
        found = [read_source(given, level) for given in (sources if several else [sources])]
        if not found:
            raise ConfigError("expected something to report, got an empty list.")
        sections = [
            section
            for at, source in enumerate(found, start=1)
            for section in sections_of(source, f"s{at}", source.name if len(found) > 1 else "")
        ]
        made_from = ", ".join(source.name for source in found)
        return write_page(Page(title or _title(found), made_from, tuple(sections)), path)


def sections_of(
    source: Source, anchor: str, name: str = "", *, figures: bool = True
) -> Iterator[Section]:
    """The sections that report one source.

    Args:
        source: of results.
        anchor: prefix of the anchors in the page.
        name: prefix of the headings; empty for none.
        figures: whether to draw the figures that the frame supports.
    """
    before = f"{name}: " if name else ""
    drawn, left_out = pictures_of(source) if figures else ((), ())
    if drawn or left_out:
        yield Section(f"{anchor}-figures", f"{before}Figures", left_out, pictures=drawn)
    notes = [source.note] if source.note else []
    if source.kind == OVERSMOOTHING:
        notes.append("One row per strategy, block and statistic, with the interval in brackets.")
    yield Section(
        f"{anchor}-results", f"{before}Results", tuple(notes), tables=(cell_table(source, anchor),)
    )
    if failed := failures(source, anchor):
        table, traces = failed
        yield Section(
            f"{anchor}-failures", f"{before}Failed cells", tables=(table,), details=traces
        )
    yield origins(source, anchor, f"{before}Provenance")


def _title(found: Sequence[Source]) -> str:
    """Model and data, if all rows share them."""
    words: list[str] = []
    for column in ("model", "data"):
        values = {str(v) for s in found if column in s.frame for v in s.frame[column].dropna()}
        words += values if len(values) == 1 else []
    about = " on ".join(words)
    return f"Token reduction: {about}" if about else "Token reduction"
