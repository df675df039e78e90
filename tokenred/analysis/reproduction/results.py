"""What came of a reproduction: its frame, its table, its page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenred.analysis.reproduction.cells import Record
from tokenred.analysis.reproduction.experiments import Experiment
from tokenred.analysis.reproduction.judging import DIFFERS, MEASURED, OWED, REPRODUCED, judge
from tokenred.analysis.reproduction.points import Point
from tokenred.analysis.reproduction.stands import Stand
from tokenred.analysis.result import Result, plain_table

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

__all__ = ["MARKS", "Part", "Reproduction"]

MARKS = (REPRODUCED, DIFFERS, OWED, MEASURED)
IMAGENET = 50_000
_METRICS = ("gmacs", "top1", "loss", "speedup")
_COLUMNS = (
    "experiment", "model", "strategy", "metric", "ours", "low", "high", "published", "tolerance",
    "verdict", "why", "command", "key",
)  # fmt: skip
_COSINE = "cosine"


@dataclass(frozen=True)
class Part:
    """An experiment on a model.

    Attributes:
        experiment, stand: which.
        points: its rows.
        records: of each point, the stored rows of its cells; empty where nothing was run.
        follow: the frame of an oversmoothing measurement, where it is one.
        why: nothing was run.
    """

    experiment: Experiment
    stand: Stand
    points: tuple[Point, ...]
    records: tuple[tuple[Record, ...], ...] = ()
    follow: pd.DataFrame | None = None
    why: str = ""

    def rows(self, images: int | None) -> Iterator[dict[str, Any]]:
        """One dictionary a figure; ``images`` is how many were run."""
        about = {"experiment": self.experiment.name, "model": self.stand.name}
        for at, point in enumerate(self.points):
            row = {**about, "strategy": point.label, "command": point.command}
            if self.why or point.owed:
                # Rows that another experiment judges are owed there.
                if self.experiment.judged:
                    yield {**row, "metric": "top1", "published": point.published.get("top1"),
                           "verdict": OWED, "why": point.owed or self.why}  # fmt: skip
                continue
            for figure in _figures(point, _best(self.records[at]), images, self):
                yield {**row, **figure}
        yield from (about | row for row in self._followed())
        if self.stand.is_own:
            for what, command in self.experiment.owed:
                yield {**about, "strategy": what, "metric": "", "verdict": OWED,
                       "why": "needs fine-tuned weights", "command": command}  # fmt: skip

    def _followed(self) -> Iterator[dict[str, Any]]:
        """Of the tokens after the last block: how alike they are."""
        if self.follow is None:
            if self.why and not self.points:
                yield {"strategy": "", "metric": _COSINE, "verdict": OWED, "why": self.why}
            return
        frame = self.follow[self.follow["statistic"] == _COSINE]
        for row in frame[frame["layer"] == frame["layer"].max()].to_dict("records"):
            told = {"strategy": row["strategy"], "metric": _COSINE, "ours": row["mean"],
                    "low": row["low"], "high": row["high"], "verdict": MEASURED}  # fmt: skip
            if row["strategy"] != "dense":
                ends = [row[f"difference{end}"] for end in ("", "_low", "_high")]
                side = "below" if ends[2] < 0 else "above" if ends[1] > 0 else "not surely off"
                told["why"] = (
                    f"{side} dense, paired: {ends[0]:+.4f} [{ends[1]:+.4f}, {ends[2]:+.4f}]"
                )
            yield told


@dataclass(frozen=True, eq=False)
class Reproduction(Result):
    """The experiments that were run; ``print`` shows how many figures are as published.

    Attributes:
        parts: the experiments, one after the other, each on its models.
        store: file of all results, or None.
        limit: at most so many images were run.
        available: images there are, or None where none were needed.
        costs: only GMACs were asked for.
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
        """Tidy, one row a figure: ours with its interval, the published one, the verdict."""
        import pandas as pd

        rows = [row for part in self.parts for row in part.rows(self.images)]
        return pd.DataFrame(rows, columns=list(_COLUMNS))

    def counts(self, part: Part) -> dict[str, int]:
        """How many figures of a part have each verdict."""
        found = Counter(str(row["verdict"]) for row in part.rows(self.images))
        return {mark: found[mark] for mark in MARKS}

    @property
    def differing(self) -> pd.DataFrame:
        """The figures that are not as published."""
        return self.frame[self.frame["verdict"] == DIFFERS]

    def table(self) -> Table:
        """Verdicts counted, one row an experiment and model."""
        heads = ["experiment", "model", "what", "✓", "✗", "owed", "measured only"]
        table = plain_table("The GTP paper's experiments", heads, left=3)
        for part in self.parts:
            counts = self.counts(part)
            cells = [part.experiment.name, part.stand.name, part.experiment.title]
            table.add_row(*cells, *(str(counts[mark] or "") for mark in MARKS))
        return table

    def footnotes(self) -> list[str]:
        """What the verdicts mean, and what is owed."""
        from tokenred.analysis.reproduction.judging import WHY

        lines = []
        if any(part.stand.is_own for part in self.parts):
            lines = [WHY["gmacs"], WHY["group_gmacs"]]
            lines += [] if self.costs else [WHY["top1"], WHY["loss"]]
            if self.images is not None and self.images < IMAGENET:
                lines.append(f"{WHY['subset']} Here: {self.images} images.")
        if any(not part.stand.is_own for part in self.parts):
            lines.append(
                "Other models than the paper's have no published figures: theirs are measured "
                "only, at P scaled to their tokens and blocks."
            )
        if self.costs:
            lines.append("GMACs only: accuracies are owed, without images nothing was run.")
        return lines

    def to_html(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page: verdicts, figures, and what produced them.

        Raises:
            ConfigError, OutputExistsError, DataError: as `tokenred.analysis.report`.
        """
        from tokenred.analysis.reporting.writing import check_page_path, write_page
        from tokenred.analysis.reproduction.pages import make_page

        path = check_page_path(path, overwrite=overwrite)
        return write_page(make_page(self), path)


def _best(records: tuple[Record, ...]) -> Record:
    """The most accurate of several cells, as the paper chose."""
    return max(records, key=lambda row: row.get("top1") or -1.0)


def _figures(point: Point, row: Record, images: int | None, part: Part) -> Iterator[dict[str, Any]]:
    """Each metric of a cell beside what was published."""
    if row.get("status") == "failed" or row.get("error"):
        yield {"metric": "", "verdict": OWED, "why": row["error"], "key": row.get("key", "")}
        return
    judged = part.experiment.judged
    for metric in _METRICS:
        ours, low, high = _ours(metric, row)
        published = point.published.get(metric) if judged else None
        if ours is None and published is None:
            continue
        if ours is None:
            if metric in ("top1",):
                yield {"metric": metric, "published": published, "verdict": OWED,
                       "why": "no images were looked at", "key": row.get("key", "")}  # fmt: skip
            continue
        part_of = images is not None and images < IMAGENET
        sampling = (high - low) / 2 if part_of and low is not None and high is not None else 0.0
        verdict = judge(metric, ours, published, group=point.group, sampling=sampling)
        yield {
            "metric": metric, "ours": ours, "low": low, "high": high, "published": published,
            "tolerance": verdict.tolerance, "verdict": verdict.mark, "key": row.get("key", ""),
        }  # fmt: skip


def _ours(metric: str, row: Record) -> tuple[float | None, float | None, float | None]:
    """A metric and its interval."""
    from tokenred.analysis.plots.points import wilson

    if metric == "loss":
        if row.get("method") == "dense":
            return None, None, None
        names = ("difference", "difference_low", "difference_high")
        ours, low, high = (row.get(name) for name in names)
        return ours, low, high
    value = row.get(metric)
    if value is None:
        return None, None, None
    if metric == "top1":
        return (value, *wilson(value, row["images"]))
    if metric == "speedup":
        return value, row.get("speedup_low"), row.get("speedup_high")
    return float(value), None, None
