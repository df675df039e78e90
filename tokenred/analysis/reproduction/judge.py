"""An experiment on a model: its figures beside the published ones, with a verdict on each."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tokenred.analysis.plots.points import wilson
from tokenred.analysis.reports.page import Value
from tokenred.analysis.reproduction.experiments import TOLERANCES, Claim, Experiment, Target
from tokenred.analysis.study.rows import tidy

# Verdicts, as the page says and colours them.
VERDICTS = {
    "✓": Value("✓ as published", mark="good"),
    "✗": Value("✗ differs", mark="bad"),
    "not run": Value("not run", mark="open"),
    "–": Value("measured only"),
}
REPRODUCED, DIFFERS, NOT_RUN, MEASURED = VERDICTS
IMAGENET = 50_000
# The column of each metric, whose interval is in columns of its own; top-1 has Wilson's.
_METRICS = {"gmacs": "gmacs", "top1": "top1", "loss": "difference", "speedup": "speedup"}
_COSINE = "cosine"

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """An experiment on a model.

    Attributes:
        experiment, target: which.
        rows: one per figure: strategy, metric, ours with its interval, the published one, verdict.
        frame: what its chart draws; None if there is too little.
    """

    experiment: Experiment
    target: Target
    rows: Sequence[Mapping[str, Any]]
    frame: pd.DataFrame | None = None

    @property
    def names(self) -> dict[str, str]:
        """Of the experiment and the model."""
        return {"experiment": self.experiment.name, "model": self.target.name}

    @property
    def counts(self) -> dict[str, int]:
        """Number of figures with each verdict."""
        found = Counter(str(row["verdict"]) for row in self.rows)
        return {mark: found[mark] for mark in VERDICTS}


def part_of_cells(
    experiment: Experiment,
    target: Target,
    claims: Sequence[Claim],
    records: Sequence[Sequence[Record]],
    images: int | None,
    why: str = "",
) -> Part:
    """Judge the cells of an experiment.

    ``records`` are, for each claim, the stored rows of its cells; ``images`` the number of images
    that were run (None without images), ``why`` why nothing was run.
    """
    rows: list[dict[str, Any]] = []
    for at, claim in enumerate(claims):
        about = {"strategy": claim.label, "command": claim.command}
        if not (why or claim.why_not):
            # Of several cells the most accurate counts, as in the paper.
            best = max(records[at], key=lambda record: record.get("top1") or -1.0)
            rows += [about | row for row in _figures(claim, best, images, experiment.judged)]
        elif experiment.judged:  # figures that another experiment judges are listed there
            rows.append(about | _not_run("top1", claim.why_not or why, claim.published.get("top1")))
    drawn = {row["key"]: dict(row) for group in records for row in group if "top1" in row}
    axes = list(dict.fromkeys(n for c in claims for cell in c.cells for n in cell if n != "base"))
    frame = tidy(list(drawn.values()), axes) if len(drawn) > 1 else None
    return Part(experiment, target, rows, frame)


def part_of_tokens(
    experiment: Experiment, target: Target, frame: pd.DataFrame | None, why: str = ""
) -> Part:
    """The similarity of the tokens after the last block, from a frame of oversmoothing."""
    rows = []
    if frame is None:
        rows.append({"strategy": "", **_not_run(_COSINE, why)})
    else:
        own = frame[frame["statistic"] == _COSINE]
        for row in own[own["layer"] == own["layer"].max()].to_dict("records"):
            told = {"strategy": row["strategy"], "metric": _COSINE, "ours": row["mean"],
                    "low": row["low"], "high": row["high"], "verdict": MEASURED}  # fmt: skip
            if row["strategy"] != "dense":
                gap, low, high = (row[f"difference{end}"] for end in ("", "_low", "_high"))
                side = "below" if high < 0 else "above" if low > 0 else "not significantly off"
                told["why"] = f"{side} dense, paired: {gap:+.4f} [{low:+.4f}, {high:+.4f}]"
            rows.append(told)
    return Part(experiment, target, rows, frame)


def _figures(
    claim: Claim, record: Record, images: int | None, judged: bool
) -> Iterator[dict[str, Any]]:
    """Each metric of a cell with its published value."""
    key = {"key": record.get("key", "")}
    if record.get("status") == "failed" or record.get("error"):
        yield _not_run("", record["error"]) | key
        return
    for metric, name in _METRICS.items():
        published = claim.published.get(metric) if judged else None
        ours = record.get(name)
        if metric == "loss" and record.get("method") == "dense":
            continue
        if ours is None:
            if metric == "top1" and published is not None:
                yield _not_run(metric, "no images were used", published) | key
            continue
        low, high = (record.get(f"{name}_{end}") for end in ("low", "high"))
        if metric == "top1":
            low, high = wilson(ours, record["images"])
        half = (high - low) / 2 if low is not None and high is not None else 0.0
        sampling = half if images is not None and images < IMAGENET else 0.0
        verdict, tolerance = judge(metric, ours, published, group=claim.group, sampling=sampling)
        yield {
            "metric": metric, "ours": float(ours), "low": low, "high": high,
            "published": published, "tolerance": tolerance, "verdict": verdict, **key,
        }  # fmt: skip


def judge(
    metric: str, ours: float, published: float | None, *, group: bool = False, sampling: float = 0.0
) -> tuple[str, float | None]:
    """Compare a figure with the published one, if there is one: the verdict and its tolerance.

    The published GMACs may be those of a ``group`` of methods; on a subset of the images,
    ``sampling`` is half the width of the interval.
    """
    if published is None or metric not in TOLERANCES:
        return MEASURED, None
    known = TOLERANCES["group_gmacs" if metric == "gmacs" and group else metric]
    tolerance = known["within"] + (0.0 if metric == "gmacs" else sampling)
    # Printed digits are decimal: 0.30000000000000004 is 0.3.
    close = abs(ours - published) <= tolerance + 1e-9
    return (REPRODUCED if close else DIFFERS), tolerance


def _not_run(metric: str, why: str, published: float | None = None) -> dict[str, Any]:
    return {"metric": metric, "published": published, "verdict": NOT_RUN, "why": why}
