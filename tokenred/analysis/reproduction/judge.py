"""Whether the figures of an experiment agree with the published ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenred.analysis.plots.points import wilson
from tokenred.analysis.reproduction.claims import Claim
from tokenred.analysis.reproduction.experiments import TOLERANCES, Experiment, finetuning
from tokenred.analysis.reproduction.targets import Target

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "DIFFERS", "IMAGENET", "MARKS", "MEASURED", "OWED", "REPRODUCED", "Part", "judge",
]  # fmt: skip

REPRODUCED, DIFFERS, OWED, MEASURED = MARKS = ("✓", "✗", "owed", "–")
IMAGENET = 50_000
# A metric with the columns of its interval; top-1 has Wilson's.
_METRICS = {
    "gmacs": ("gmacs", "", ""),
    "top1": ("top1", "", ""),
    "loss": ("difference", "difference_low", "difference_high"),
    "speedup": ("speedup", "speedup_low", "speedup_high"),
}
_COSINE = "cosine"

Record = Mapping[str, Any]


def judge(
    metric: str,
    ours: float,
    published: float | None,
    *,
    group: bool = False,
    sampling: float = 0.0,
) -> tuple[str, float | None]:
    """Compare a figure with the published one.

    Args:
        metric: ``"gmacs"``, ``"top1"``, ``"loss"``; others are not judged.
        ours: the figure.
        published: None if unknown.
        group: whether the published GMACs are those of a group of methods.
        sampling: half the width of the interval, on a subset of the images.

    Returns:
        The verdict and its tolerance; None if nothing is published.
    """
    if published is None or metric not in TOLERANCES:
        return MEASURED, None
    known = TOLERANCES["group_gmacs" if metric == "gmacs" and group else metric]
    tolerance = known["within"] + (0.0 if metric == "gmacs" else sampling)
    # Printed digits are decimal: 0.30000000000000004 is 0.3.
    close = abs(ours - published) <= tolerance + 1e-9
    return (REPRODUCED if close else DIFFERS), tolerance


@dataclass(frozen=True)
class Part:
    """An experiment on a model.

    Attributes:
        experiment, target: which.
        claims: its rows.
        records: for each claim, the stored rows of its cells; empty if nothing was run.
        follow: the frame of an oversmoothing measurement, if it is one.
        why: why nothing was run.
    """

    experiment: Experiment
    target: Target
    claims: tuple[Claim, ...]
    records: tuple[tuple[Record, ...], ...] = ()
    follow: pd.DataFrame | None = None
    why: str = ""

    def rows(self, images: int | None) -> Iterator[dict[str, Any]]:
        """One dictionary per figure; ``images`` is the number of images that were run."""
        about = {"experiment": self.experiment.name, "model": self.target.name}
        for at, claim in enumerate(self.claims):
            row = {**about, "strategy": claim.label, "command": claim.command}
            if not (self.why or claim.owed):
                # Of several cells the most accurate counts, as in the paper.
                best = max(self.records[at], key=lambda record: record.get("top1") or -1.0)
                for figure in self._figures(claim, best, images):
                    yield row | figure
            elif self.experiment.judged:  # figures that another experiment judges are owed there
                yield row | _owed("top1", claim.owed or self.why, claim.published.get("top1"))
        for row in self._followed():
            yield about | row
        if self.target.is_own and (missing := self.experiment.finetuned):
            command = finetuning(self.target.model["spec"], missing["strategy"])
            yield about | _owed("", "needs fine-tuned weights") | {
                "strategy": missing["what"], "command": command}  # fmt: skip

    def _figures(
        self, claim: Claim, record: Record, images: int | None
    ) -> Iterator[dict[str, Any]]:
        """Each metric of a cell with its published value."""
        key = {"key": record.get("key", "")}
        if record.get("status") == "failed" or record.get("error"):
            yield _owed("", record["error"]) | key
            return
        for metric, (name, *ends) in _METRICS.items():
            published = claim.published.get(metric) if self.experiment.judged else None
            ours = record.get(name)
            if metric == "loss" and record.get("method") == "dense":
                continue
            if ours is None:
                if metric == "top1" and published is not None:
                    yield _owed(metric, "no images were used", published) | key
                continue
            low, high = (record.get(end) for end in ends)
            if metric == "top1":
                low, high = wilson(ours, record["images"])
            half = (high - low) / 2 if low is not None and high is not None else 0.0
            sampling = half if images is not None and images < IMAGENET else 0.0
            verdict, tolerance = judge(
                metric, ours, published, group=claim.group, sampling=sampling
            )
            yield {
                "metric": metric, "ours": float(ours), "low": low, "high": high,
                "published": published, "tolerance": tolerance, "verdict": verdict, **key,
            }  # fmt: skip

    def _followed(self) -> Iterator[dict[str, Any]]:
        """Similarity of the tokens after the last block."""
        if self.follow is None:
            if self.why and not self.claims:
                yield {"strategy": "", **_owed(_COSINE, self.why)}
            return
        frame = self.follow[self.follow["statistic"] == _COSINE]
        for row in frame[frame["layer"] == frame["layer"].max()].to_dict("records"):
            told = {"strategy": row["strategy"], "metric": _COSINE, "ours": row["mean"],
                    "low": row["low"], "high": row["high"], "verdict": MEASURED}  # fmt: skip
            if row["strategy"] != "dense":
                gap, low, high = (row[f"difference{end}"] for end in ("", "_low", "_high"))
                side = "below" if high < 0 else "above" if low > 0 else "not significantly off"
                told["why"] = f"{side} dense, paired: {gap:+.4f} [{low:+.4f}, {high:+.4f}]"
            yield told


def _owed(metric: str, why: str, published: float | None = None) -> dict[str, Any]:
    return {"metric": metric, "published": published, "verdict": OWED, "why": why}
