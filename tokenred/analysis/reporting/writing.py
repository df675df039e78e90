"""`report`: from results to one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tokenred._version import __version__
from tokenred.analysis.level import check_level
from tokenred.analysis.reporting.cells import cell_table, failures
from tokenred.analysis.reporting.origins import origin_table, shared_facts
from tokenred.analysis.reporting.page import Page, Section, render
from tokenred.analysis.reporting.pictures import pictures_of
from tokenred.analysis.reporting.sources import OVERSMOOTHING, Source, read_source
from tokenred.core.errors import ConfigError, DataError
from tokenred.core.files import check_new, write_atomically

__all__ = ["make_page", "report", "sections_of", "write_page"]


def report(
    sources: Any,
    path: str | Path,
    *,
    title: str | None = None,
    level: float = 0.95,
    overwrite: bool = False,
) -> Path:
    """Write results as one HTML page that loads nothing: tables, figures, and what produced them.

    Args:
        sources: one or a list of: the path of a study's store, of a CSV, or of a sweep's file;
            a `Store`, `Study`, `Comparison`, `Sweep` or `Oversmoothing`; a frame of one of them.
        path: of the page, ending in .html.
        title: of the page; None for model and data.
        level: of the paired intervals of a store.
        overwrite: whether an older file may be replaced.

    Raises:
        ConfigError: for another suffix, or a level out of range.
        DataError: for a file that cannot be read or written.
        InputError: for results without a row.
        OutputExistsError: where the file exists.
    """
    path = check_page_path(path, overwrite=overwrite)
    return write_page(make_page(sources, title=title, level=level), path)


def check_page_path(path: str | Path, *, overwrite: bool = False) -> Path:
    """A path that a page may be written to; call it before the work is done.

    Raises:
        ConfigError, OutputExistsError, DataError: as `report`.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"expected the page's file to end in .html, got {path.name!r}.")
    path = check_new(path, overwrite=overwrite)
    if not path.parent.is_dir():
        raise DataError(f"expected a folder at {path.parent}, found none; make it first.")
    return path


def write_page(page: Page, path: Path) -> Path:
    """Write a page, at once or not at all.

    Raises:
        DataError: where the file cannot be written.
    """
    try:
        return write_atomically(path, render(page))
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}; choose another place.") from error


def make_page(sources: Any, *, title: str | None = None, level: float = 0.95) -> Page:
    """The page of `report`, not written yet.

    Raises:
        ConfigError, DataError, InputError: as `report`.
    """
    check_level(level)
    several = isinstance(sources, Sequence) and not isinstance(sources, str)
    read = [read_source(given, level) for given in (sources if several else [sources])]
    if not read:
        raise ConfigError("expected something to report, got an empty list.")
    sections: list[Section] = []
    for at, source in enumerate(read, start=1):
        sections += sections_of(source, f"s{at}", source.name if len(read) > 1 else "")
    return Page(title or _title(read), subtitle(", ".join(s.name for s in read)), tuple(sections))


def subtitle(made_from: str) -> str:
    """The line beneath a title: from what, by what, when."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return f"From {made_from}, by tokenred {__version__}, {now}."


def sections_of(
    source: Source, anchor: str, name: str = "", *, figures: bool = True
) -> Iterator[Section]:
    """The sections that report one source.

    Args:
        source: of results.
        anchor: goes before the names of places in the page.
        name: goes before the headings; empty for none.
        figures: whether to draw what the frame supports.
    """
    before = f"{name}: " if name else ""
    origins, places = origin_table(source, f"{anchor}-origin")
    drawn, left_out = pictures_of(source) if figures else ((), ())
    cells = cell_table(source, f"{anchor}-cells", places)
    failed, traces = failures(source, f"{anchor}-failed")
    if drawn or left_out:
        yield Section(f"{anchor}-figures", f"{before}Figures", left_out, pictures=drawn)
    notes = [source.note] if source.note else []
    if source.kind == OVERSMOOTHING:
        notes.append("One row a strategy, block and statistic; in brackets the interval.")
    yield Section(f"{anchor}-results", f"{before}Results", tuple(notes), tables=(cells,))
    if failed is not None:
        yield Section(
            f"{anchor}-failures", f"{before}Failed cells", tables=(failed,), details=traces
        )
    yield Section(
        f"{anchor}-made",
        f"{before}What produced it",
        ("All cells share these:",),
        shared_facts(source),
        tables=(origins,),
    )


def _title(read: Sequence[Source]) -> str:
    """Model and data, where all rows share them."""
    words: list[str] = []
    for column in ("model", "data"):
        values = {str(v) for s in read if column in s.frame for v in s.frame[column].dropna()}
        words += values if len(values) == 1 else []
    about = " on ".join(words)
    return f"Token reduction: {about}" if about else "Token reduction"
