"""The page of a reproduction: a summary, the experiments, and the results behind them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenred.analysis.plots.heat_map import heat_map
from tokenred.analysis.plots.published import GTP_PAPER, read_published, tradeoff_points
from tokenred.analysis.plots.scorer_comparison import scorer_comparison
from tokenred.analysis.plots.smoothing_curves import smoothing_curves
from tokenred.analysis.plots.tables import graph_table, theta_table
from tokenred.analysis.plots.tradeoff import tradeoff
from tokenred.analysis.reports.figures import draw
from tokenred.analysis.reports.page import (
    Column,
    DataTable,
    Page,
    Picture,
    Section,
    Value,
    number,
    plain,
)
from tokenred.analysis.reports.source import read_source
from tokenred.analysis.reports.write import sections_of
from tokenred.analysis.reproduction.judge import DIFFERS, MARKS, MEASURED, OWED, REPRODUCED, Part
from tokenred.analysis.study.rows import tidy
from tokenred.core.errors import InputError, TokenredError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["figure_of", "make_page"]

_LOOKS = {REPRODUCED: "good", DIFFERS: "bad", OWED: "owed"}
_WORDS = {REPRODUCED: "✓ as published", DIFFERS: "✗ differs", MEASURED: "measured only"}
# The label of a metric, and the number of digits shown.
_METRICS = {
    "gmacs": ("GMACs", 3),
    "top1": ("top-1 %", 2),
    "loss": ("points below dense", 2),
    "speedup": ("speed-up (published: A6000)", 2),
    "cosine": ("cosine similarity, last block", 4),
}
_COLUMNS = [
    Column("strategy"), Column("figure"), Column("ours", numeric=True),
    Column("interval", numeric=True, help="95%, over the images"),
    Column("published", numeric=True), Column("tolerance", numeric=True), Column("verdict"),
    Column("why"),
]  # fmt: skip
_WIDTH, _HEIGHT = 6.0, 3.6
_PANELS = ("cosine", "cosine_difference")


def make_page(
    parts: Sequence[Part],
    counts: Sequence[dict[str, int]],
    notes: Sequence[str],
    images: int | None,
    store: Path | None,
) -> Page:
    """The page.

    Args:
        parts: the experiments on their models.
        counts: for each part, the number of figures with each verdict.
        notes: what the verdicts mean.
        images: number of images run, or None.
        store: the store of all results, or None.
    """
    sections = [_summary(parts, counts, notes)]
    sections += [_section(part, at, images) for at, part in enumerate(parts, start=1)]
    if store is not None:
        try:
            source = read_source(store)
        except TokenredError:  # nothing could be run, and the store is missing or empty
            pass
        else:
            # The experiments have already drawn the cells.
            sections += sections_of(source, "all", "All cells", figures=False)
    made_from = "formulas, without images" if store is None else store.name
    return Page("The GTP paper's experiments", made_from, tuple(sections))


def _summary(
    parts: Sequence[Part], counts: Sequence[dict[str, int]], notes: Sequence[str]
) -> Section:
    heads = [_WORDS.get(mark, mark) for mark in MARKS]
    columns = [Column("experiment"), Column("model"), Column("what"),
               *(Column(head, numeric=True) for head in heads)]  # fmt: skip
    rows = [
        [
            Value(part.experiment.name, link=f"#part-{at}"),
            Value(part.target.name),
            Value(part.experiment.title),
            *(Value(str(n or ""), n, _LOOKS.get(mark, "") if n else "")
              for mark, n in counted.items()),
        ]
        for at, (part, counted) in enumerate(zip(parts, counts, strict=True), start=1)
    ]  # fmt: skip
    caption = "Number of figures that agree with the paper"
    table = DataTable("summary-table", caption, columns, rows, sortable=False)
    return Section("summary", "Summary", tuple(notes), tables=(table,))


def _section(part: Part, at: int, images: int | None) -> Section:
    heading = f"{part.experiment.title}, {part.target.name}"
    notes = [part.experiment.note, part.target.note]
    pictures = []
    try:
        if (found := figure_of(part)) is not None:
            hollow = part.target.is_own and part.experiment.chart == "tradeoff"
            note = "Hollow, dotted: published." if hollow else ""
            alt = f"{heading}. The tables have the same numbers."
            pictures.append(draw(Picture(heading, alt, note=note), lambda: found))
    except TokenredError as error:
        notes.append(f"Not drawn: {error}")
    rows = list(part.rows(images))
    commands = dict.fromkeys(str(row["command"]) for row in rows if row.get("command"))
    caption = f"{part.experiment.name} on {part.target.name}"
    table = DataTable(f"figures-{at}", caption, _COLUMNS, [_cells(row) for row in rows])
    return Section(
        f"part-{at}", f"{part.experiment.title}: {part.target.name}",
        tuple(note for note in notes if note), pictures=tuple(pictures),
        # Of an experiment that is only drawn, the rows are those of others.
        tables=(table,) if rows and (part.experiment.judged or not pictures) else (),
        details=(("Commands that produce the owed figures",
        "\n".join(commands)),) if commands else (),
    )  # fmt: skip


def _cells(row: dict[str, Any]) -> list[Value]:
    metric, verdict = row["metric"], row["verdict"]
    name, digits = _METRICS.get(metric, (metric, 3))
    signed = metric == "loss"
    low, high = (number(row.get(end), digits, signed).text for end in ("low", "high"))
    return [
        Value(row["strategy"]),
        Value(name),
        number(row.get("ours"), digits, signed),
        Value(f"{low} … {high}" if low and high else ""),
        number(row.get("published"), 2, signed),
        number(row.get("tolerance"), 2),
        Value(_WORDS.get(verdict, verdict), mark=_LOOKS.get(verdict, "")),
        Value(plain(row.get("why"))),
    ]


def figure_of(part: Part) -> Figure | None:
    """The figure of a part with published points; None if there is nothing to draw.

    Raises:
        TokenredError: as the functions of the plots raise them.
    """
    if part.follow is not None:
        return smoothing_curves(part.follow, statistics=_PANELS)
    rows = {row["key"]: row for records in part.records for row in records if "top1" in row}
    if len(rows) < 2:
        return None
    axes = list(dict.fromkeys(n for p in part.claims for c in p.cells for n in c if n != "base"))
    frame = tidy(list(rows.values()), axes)
    chart, own = part.experiment.chart, part.target.is_own
    if chart == "scorers":
        return scorer_comparison(frame, width=_WIDTH)
    if chart == "heat_map":
        return heat_map(frame, "alpha", "M", width=_WIDTH)
    if chart in ("graphs", "theta"):
        table = partial(graph_table if chart == "graphs" else theta_table, frame, width=_WIDTH)
        return table(published=GTP_PAPER, backbone=part.target.backbone) if own else table()
    return tradeoff(
        frame, published=_published_points(part) if own else None,
        title=part.target.name if own else None, width=_WIDTH, height=_HEIGHT,
    )  # fmt: skip


def _published_points(part: Part) -> pd.DataFrame | None:
    """The published points of a trade-off, or None if they have no cost."""
    import pandas as pd

    found = []
    for table in part.experiment.tables:
        try:
            own = read_published(
                GTP_PAPER, table=table, backbone=part.target.backbone, finetuned=False
            )
            found.append(tradeoff_points(own, "gmacs"))
        except InputError:  # no such rows, or without GMACs
            continue
    return pd.concat(found, ignore_index=True) if found else None
