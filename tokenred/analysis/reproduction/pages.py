"""The page of a reproduction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tokenred.analysis.reporting.cells import is_missing, plain
from tokenred.analysis.reporting.page import Column, DataTable, Page, Row, Section, Value, number
from tokenred.analysis.reporting.pictures import embed
from tokenred.analysis.reporting.sources import read_source
from tokenred.analysis.reporting.writing import sections_of, subtitle
from tokenred.analysis.reproduction.charts import drawing_of
from tokenred.analysis.reproduction.judging import DIFFERS, MEASURED, OWED, REPRODUCED
from tokenred.core.errors import TokenredError

if TYPE_CHECKING:
    from tokenred.analysis.reproduction.results import Part, Reproduction

__all__ = ["make_page"]

_LOOKS = {REPRODUCED: "good", DIFFERS: "bad", OWED: "owed"}
_WORDS = {REPRODUCED: "✓ as published", DIFFERS: "✗ differs", MEASURED: "measured only"}
_DIGITS = {"gmacs": 3, "top1": 2, "loss": 2, "speedup": 2, "cosine": 4}
_NAMES = {
    "gmacs": "GMACs",
    "top1": "top-1 %",
    "loss": "points from dense",
    "speedup": "speed-up (published: A6000)",
    "cosine": "cosine similarity, last block",
}


def make_page(done: Reproduction) -> Page:
    """The page of a reproduction: a summary, the experiments, and the results behind them."""
    sections = [_summary(done)]
    sections += [_section(done, part, at) for at, part in enumerate(done.parts, start=1)]
    if done.store is not None:
        sections += _stored(done)
    made_from = "formulas, without images" if done.store is None else done.store.name
    return Page("The GTP paper's experiments", subtitle(made_from), tuple(sections))


def _summary(done: Reproduction) -> Section:
    heads = ("✓ as published", "✗ differs", "owed", "measured only")
    columns = (Column("experiment"), Column("model"), Column("what"),
               *(Column(head, numeric=True) for head in heads))  # fmt: skip
    rows = []
    for at, part in enumerate(done.parts, start=1):
        counts = done.counts(part).items()
        link = Value(part.experiment.name, link=f"#part-{at}")
        cells = [link, Value(part.stand.name), Value(part.experiment.title)]
        cells += [
            Value(str(n) if n else "", float(n), _LOOKS.get(mark, "") if n else "")
            for mark, n in counts
        ]
        rows.append(Row(tuple(cells)))
    caption = "How many figures are as published"
    table = DataTable("summary-table", caption, columns, tuple(rows), sortable=False)
    return Section("summary", "Summary", tuple(done.footnotes()), tables=(table,))


def _section(done: Reproduction, part: Part, at: int) -> Section:
    notes = [part.experiment.note, part.stand.note]
    pictures = []
    if (drawing := drawing_of(part)) is not None:
        try:
            pictures.append(embed(drawing))
        except TokenredError as error:
            notes.append(f"Not drawn: {error}")
    rows = list(part.rows(done.images))
    commands = dict.fromkeys(str(row["command"]) for row in rows if row.get("command"))
    details = (("Commands that make what is owed", "\n".join(commands)),) if commands else ()
    table = DataTable(
        f"figures-{at}", f"{part.experiment.name} on {part.stand.name}", _columns(),
        tuple(Row(tuple(_cells(row))) for row in rows),
    )  # fmt: skip
    return Section(
        f"part-{at}",
        f"{part.experiment.title}: {part.stand.name}",
        tuple(note for note in notes if note),
        # Of an experiment that is only drawn, the rows are those of others.
        tables=(table,) if rows and (part.experiment.judged or not pictures) else (),
        pictures=tuple(pictures),
        details=details,
    )


def _columns() -> tuple[Column, ...]:
    return (
        Column("strategy"),
        Column("figure"),
        Column("ours", numeric=True),
        Column("interval", numeric=True, help="95%, over the images"),
        Column("published", numeric=True),
        Column("tolerance", numeric=True),
        Column("verdict"),
        Column("why"),
    )


def _cells(row: dict[str, Any]) -> Iterator[Value]:
    metric = row["metric"]
    digits, signed = _DIGITS.get(metric, 3), metric == "loss"
    low, high = (number(row.get(end), digits, signed).text for end in ("low", "high"))
    verdict = row["verdict"]
    yield Value(row["strategy"])
    yield Value(_NAMES.get(metric, metric))
    yield number(row.get("ours"), digits, signed)
    yield Value(f"{low} … {high}" if low and high else "")
    yield number(row.get("published"), 2, signed)
    yield number(row.get("tolerance"), 2)
    yield Value(_WORDS.get(verdict, verdict), mark=_LOOKS.get(verdict, ""))
    yield Value("" if is_missing(row.get("why")) else plain(row["why"]))


def _stored(done: Reproduction) -> list[Section]:
    """All cells and what produced them; the experiments have drawn them already."""
    try:
        source = read_source(done.store)
    except TokenredError:  # nothing could be run, and the store is not there or empty
        return []
    return list(sections_of(source, "all", "All cells", figures=False))
