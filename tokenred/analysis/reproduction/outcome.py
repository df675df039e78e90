"""The result of a reproduction: its frame, its table, its page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tokenred.analysis.reports.page import SUFFIXES, write_page
from tokenred.analysis.reproduction.experiments import TOLERANCES
from tokenred.analysis.reproduction.judge import DIFFERS, IMAGENET, MARKS, Part
from tokenred.analysis.reproduction.paper_page import make_page
from tokenred.analysis.result import Result, plain_table
from tokenred.core.files import check_output

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

__all__ = ["Reproduction"]

_COLUMNS = (
    "experiment", "model", "strategy", "metric", "ours", "low", "high", "published", "tolerance",
    "verdict", "why", "command", "key",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Reproduction(Result):
    """The experiments that were run; ``print`` shows how many figures agree.

    Attributes:
        parts: the experiments in order, each on its models.
        store: file of all results, or None.
        limit: maximum number of images.
        available: number of available images, or None if none were needed.
        costs: whether only GMACs were requested.
    """

    parts: tuple[Part, ...]
    store: Path | None
    limit: int | None
    available: int | None
    costs: bool = False

    @property
    def images(self) -> int | None:
        """How many images were run."""
        if self.available is None:
            return None
        return self.available if self.limit is None else min(self.limit, self.available)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Tidy, one row per figure: ours with its interval, the published one, the verdict."""
        import pandas as pd

        rows = [row for part in self.parts for row in part.rows(self.images)]
        return pd.DataFrame(rows, columns=list(_COLUMNS))

    def counts(self, part: Part) -> dict[str, int]:
        """Number of figures of a part with each verdict."""
        found = Counter(str(row["verdict"]) for row in part.rows(self.images))
        return {mark: found[mark] for mark in MARKS}

    @property
    def differing(self) -> pd.DataFrame:
        """The figures that differ from the published ones."""
        return self.frame[self.frame["verdict"] == DIFFERS]

    def table(self) -> Table:
        """Counts of verdicts, one row per experiment and model."""
        heads = ["experiment", "model", "what", "✓", "✗", "owed", "measured only"]
        table = plain_table("The GTP paper's experiments", heads, left=3)
        for part in self.parts:
            cells = [part.experiment.name, part.target.name, part.experiment.title]
            table.add_row(*cells, *(str(n or "") for n in self.counts(part).values()))
        return table

    def footnotes(self) -> list[str]:
        """What the verdicts mean, and what is owed."""
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
            lines.append("GMACs only: accuracies are owed, since nothing runs without images.")
        return lines

    def to_html(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page: verdicts, figures and provenance.

        Raises:
            ConfigError, OutputExistsError, DataError: as `tokenred.analysis.report`.
        """
        path = check_output(path, SUFFIXES, overwrite=overwrite)
        counts = [self.counts(part) for part in self.parts]
        return write_page(
            make_page(self.parts, counts, self.footnotes(), self.images, self.store), path
        )
