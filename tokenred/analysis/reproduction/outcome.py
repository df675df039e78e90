"""The result of a reproduction: its frame, its table, its page."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich.table import Table

from tokenred.analysis.plots.heat_map import heat_map
from tokenred.analysis.plots.metric_lines import scorer_comparison
from tokenred.analysis.plots.published import GTP_PAPER, read_published
from tokenred.analysis.plots.smoothing_curves import smoothing_curves
from tokenred.analysis.plots.tables import tabulate, theta_rows
from tokenred.analysis.plots.tradeoff import tradeoff
from tokenred.analysis.reports.figures import embed
from tokenred.analysis.reports.page import (
    SUFFIXES,
    Cell,
    Column,
    DataTable,
    Picture,
    Section,
    Value,
    figure,
    word,
    write_page,
)
from tokenred.analysis.reports.report import sections_of
from tokenred.analysis.reports.source import read_source
from tokenred.analysis.reproduction.experiments import BACKBONES, TOLERANCES
from tokenred.analysis.reproduction.judge import DIFFERS, IMAGENET, NOT_RUN, VERDICTS, Part
from tokenred.analysis.result import Result
from tokenred.analysis.terminal_table import plain_table
from tokenred.core.errors import TokenredError
from tokenred.core.files import check_output

_COLUMNS = (
    "experiment", "model", "strategy", "metric", "ours", "low", "high", "published", "tolerance",
    "verdict", "why", "command", "key",
)  # fmt: skip
_LABELS = {
    "gmacs": "GMACs",
    "top1": "top-1 %",
    "loss": "difference from dense, points",
    "speedup": "speed-up (published: A6000)",
    "cosine": "cosine similarity, last block",
}
_FIGURES = [
    Column("strategy", word("strategy")),
    Column("figure", lambda row: Value(str(_LABELS.get(row["metric"], row["metric"])))),
    Column("ours [95%]", figure("ours", 3, bounds=("low", "high")), True, help="over the images"),
    Column("published", figure("published", 2), True),
    Column("tolerance", figure("tolerance", 2), True),
    Column("verdict", lambda row: VERDICTS[row["verdict"]]),
    Column("why", word("why")),
]


@dataclass(frozen=True, eq=False, repr=False)
class Reproduction(Result):
    """The experiments that were run; ``print`` shows how many figures agree.

    Attributes:
        parts: the experiments in order, each on its models.
        store: file of all results, or None.
        images: how many images were run, or None if none were needed.
        costs: whether only GMACs were requested.
    """

    parts: tuple[Part, ...]
    store: Path | None
    images: int | None
    costs: bool = False

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Tidy, one row per figure: ours with its interval, the published one, the verdict."""
        rows = [{**part.names, **row} for part in self.parts for row in part.rows]
        return pd.DataFrame(rows, columns=list(_COLUMNS))

    @property
    def differing(self) -> pd.DataFrame:
        """The figures that differ from the published ones."""
        return self.frame[self.frame["verdict"] == DIFFERS]

    @property
    def ran_nothing(self) -> bool:
        """Whether there is no result at all, such as without the weights of any model."""
        return bool((self.frame["verdict"] == NOT_RUN).all())

    def _counts(self) -> Iterator[dict[str, Any]]:
        """How many figures have each verdict, for each part."""
        for at, part in enumerate(self.parts, start=1):
            yield {"at": at, **part.names, "what": part.experiment.title, **part.counts}

    def table(self) -> Table:
        """Counts of verdicts, one row per experiment and model."""
        heads = ["experiment", "model", "what", *VERDICTS]
        table = plain_table("The GTP paper's experiments", [*heads[:-1], "measured only"], left=3)
        for row in self._counts():
            table.add_row(*(str(row[name] or "") for name in heads))
        return table

    def footnotes(self) -> list[str]:
        """What the verdicts mean, and what was not run."""
        lines = []
        if any(part.target.is_own for part in self.parts):
            judged = [m for m in TOLERANCES if m.endswith("gmacs") or not self.costs]
            lines = [TOLERANCES[metric]["why"] for metric in judged]
            if self.images is not None and self.images < IMAGENET:
                lines.append(
                    "On a part of the 50,000 images the half width of the 95% interval is added. "
                    f"Here: {self.images} images."
                )
        if any(not part.target.is_own for part in self.parts):
            lines.append(
                "Models that are not in the paper have no published figures: theirs are only "
                "measured, at P scaled to their tokens and blocks."
            )
        if self.costs:
            lines.append("GMACs only: without images, accuracies cannot be measured.")
        return lines

    def to_html(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page: a summary, the experiments, and the results behind them.

        Raises:
            ConfigError, OutputExistsError, DataError: as `tokenred.analysis.report`.
        """
        path = check_output(path, SUFFIXES, overwrite=overwrite)
        sections = [self._summary()]
        sections += [_section(part, at) for at, part in enumerate(self.parts, start=1)]
        if self.store is not None:
            try:
                source = read_source(self.store)
            except TokenredError:  # nothing could be run, and the store is missing or empty
                pass
            else:
                # The experiments have already drawn the cells.
                sections += sections_of(source, "all", "All cells", figures=False)
        made_from = "formulas, without images" if self.store is None else self.store.name
        return write_page(path, "The GTP paper's experiments", made_from, sections)

    def _summary(self) -> Section:
        columns = [
            Column("experiment", lambda row: Value(row["experiment"], link=f"#part-{row['at']}")),
            Column("model", word("model")),
            Column("what", word("what")),
            *(Column(verdict.text, _counted(mark), True) for mark, verdict in VERDICTS.items()),
        ]
        caption = "Number of figures that agree with the paper"
        table = DataTable("summary-table", caption, columns, [*self._counts()], sortable=False)
        return Section("summary", "Summary", self.footnotes(), tables=[table])


def _counted(mark: str) -> Cell:
    look = VERDICTS[mark].mark
    return lambda row: Value(str(row[mark] or ""), row[mark], look if row[mark] else "")


def _section(part: Part, at: int) -> Section:
    experiment, target = part.experiment, part.target
    heading = f"{experiment.title}, {target.name}"
    notes = [experiment.note, BACKBONES[target.backbone].note if target.is_own else ""]
    pictures = []
    try:
        if (drawn := figure_of(part)) is not None:
            hollow = target.is_own and experiment.chart == "tradeoff"
            note = "Hollow, dotted: published." if hollow else ""
            alt = f"{heading}. The tables have the same numbers."
            pictures.append(Picture(heading, alt, embed(drawn), note=note))
    except TokenredError as error:
        notes.append(f"Not drawn: {error}")
    tables, details = [], []
    # Of an experiment that is only drawn, the rows are those of others.
    if part.rows and (experiment.judged or not pictures):
        caption = f"{experiment.name} on {target.name}"
        tables.append(DataTable(f"figures-{at}", caption, _FIGURES, part.rows))
    if commands := dict.fromkeys(str(row["command"]) for row in part.rows if row.get("command")):
        details.append(("Commands for the figures that were not run", "\n".join(commands)))
    return Section(
        f"part-{at}", f"{experiment.title}: {target.name}", [note for note in notes if note],
        pictures=pictures, tables=tables, details=details,
    )  # fmt: skip


def figure_of(part: Part) -> Figure | None:
    """The figure of a part with published points; None if there is nothing to draw."""
    frame, chart, own = part.frame, part.experiment.chart, part.target.is_own
    if frame is None:
        return None
    if chart == "smoothing":
        return smoothing_curves(frame, statistics=("cosine", "cosine_difference"))
    if chart == "scorers":
        return scorer_comparison(frame, width=6.0)
    if chart == "heat_map":
        return heat_map(frame, "alpha", "M", width=6.0)
    if chart in ("graphs", "theta"):
        rows, number = ("graph", 4) if chart == "graphs" else (theta_rows(frame), 5)
        theirs: dict[str, Any] = {}
        if own:
            theirs = {"published": GTP_PAPER, "backbone": part.target.backbone}
        return tabulate(frame, rows, table=number, **theirs).figure(width=6.0)
    published = title = None
    if own:
        title, points = part.target.name, read_published(GTP_PAPER, finetuned=False)
        here = points["table"].isin(part.experiment.tables) & points["gmacs"].notna()
        points = points[here & (points["backbone"] == part.target.backbone)]
        published = None if points["top1"].isna().all() else points
    return tradeoff(frame, published=published, title=title, width=6.0, height=3.6)
