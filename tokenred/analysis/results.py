"""A finished comparison: its frame, its table, its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.table import Table

from tokenred.analysis.measure.accuracy import Evaluation
from tokenred.analysis.measure.speed import Benchmark
from tokenred.analysis.result import Result, interval, number, table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Comparison"]


@dataclass(frozen=True, eq=False)
class Comparison(Result):
    """Strategies side by side; ``print`` shows the table.

    Attributes:
        frame: one row a strategy, the dense model first. ``tokens`` counts image tokens, at the
            start and after each block; ``top1``, ``top5`` are percent, ``difference`` and its
            interval percentage points from dense; ``ms`` is for a batch. Each row carries what
            determines it: strategy (``config``, ``fingerprint``), weights, seed, versions, machine.
        evaluations: by label; empty where no data was given.
        speeds: None where none were measured.
        level: of the paired intervals.
        notes: lines to print beneath the table.
    """

    frame: pd.DataFrame
    evaluations: Mapping[str, Evaluation]
    speeds: Benchmark | None
    level: float = 0.95
    notes: tuple[str, ...] = field(default=())

    def table(self, title: str | None = None) -> Table:
        """The frame for a terminal."""
        first = self.frame.iloc[0]
        heading = title or " on ".join(str(first[key]) for key in ("model", "data") if first[key])
        columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
            "strategy": lambda row: str(row["strategy"]),
            "image tokens at 0, ¼, ½, ¾, 1\nof the depth": lambda row: _tokens(row["tokens"]),
            "GMACs\nan image": lambda row: number(row, "gmacs", 3),
        }
        if self.speeds is not None:
            columns |= {
                "images\na second": lambda row: number(
                    row, "images_per_second", 0 if row["images_per_second"] >= 100 else 1
                ),
                "speed-up over dense\n[90% interval]": lambda row: interval(row, "speedup"),
                "realised\nfraction": lambda row: number(row, "realised", 2),
            }
        if self.evaluations:
            gap = f"points from dense\n[{self.level:.0%} paired interval]"
            columns["top-1\n%"] = lambda row: number(row, "top1", 2)
            columns[gap] = lambda row: interval(row, "difference", signed=True)
        rows: list[Any] = self.frame.to_dict("records")
        return table_of(columns, rows, title=heading, left=2)

    def footnotes(self) -> list[str]:
        """What the table was made with, and what was left out."""
        first = self.frame.iloc[0]
        lines = []
        if self.speeds is not None:
            pairs, m = self.speeds[0].pairs, self.speeds.machine
            lines.append(
                f"Speed: batch {self.speeds.batch_size}, {self.speeds.precision}, {pairs} pairs "
                f"with timm's fused dense model right before each; dense against itself shows "
                f"the noise. {m['processor']}, {_count(m['threads'], 'thread')}, device "
                f"{m['device']}."
            )
            lines.append(
                "Realised fraction: measured speed-up ÷ the speed-up that the GMACs allow."
            )
        if self.evaluations:
            lines.append(f"Accuracy: {_count(first['images'], 'image')}, the same for all rows.")
            skipped = next(iter(self.evaluations.values())).skipped
            if skipped:
                shown = "; ".join(f"{name} ({reason})" for name, reason in skipped[:5])
                more = f"; and {len(skipped) - 5} more" if len(skipped) > 5 else ""
                lines.append(
                    f"Left out: {_count(len(skipped), 'unreadable image')}: {shown}{more}."
                )
        lines.append(
            f"tokenred {first['tokenred']}, torch {first['torch']}, timm {first['timm']}, "
            f"seed {first['seed']}, weights {first['weights']}."
        )
        return [*lines, *self.notes]

    def resolution(self) -> str:
        """What so many images can and cannot tell, in a sentence; empty without accuracies."""
        if "difference" not in self.frame:
            return ""
        widths = (self.frame["difference_high"] - self.frame["difference_low"]).dropna()
        half = float(widths.median()) / 2
        images = int(self.frame["images"].iloc[0])
        return (
            f"What {images} images can tell: the {self.level:.0%} intervals are "
            f"{widths.min():.1f} to {widths.max():.1f} points wide. A loss of more than about "
            f"{half:.1f} points shows; a smaller one, or a lead of one method over another by as "
            "little, may be chance."
        )

    def plot(self, **options: Any) -> Figure:
        """See `tokenred.analysis.tradeoff`."""
        from tokenred.analysis.plots.tradeoff import tradeoff

        return tradeoff(self.frame, **options)


def _tokens(counts: Sequence[float]) -> str:
    """The counts at the quarters of the depth: ``196→172→148→124→100``."""
    depth = len(counts) - 1
    return "→".join(f"{counts[at]:.4g}" for at in sorted({depth * q // 4 for q in range(5)}))


def _count(number: Any, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
