"""Which patches methods keep, and how far two methods agree on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader

from tokenred.analysis.level import check_level
from tokenred.analysis.lineup import Contestant, Strategies, lineup_at_counts
from tokenred.analysis.measure.context import base_of
from tokenred.analysis.measure.image_stream import image_stream
from tokenred.analysis.measure.inputs import Data, open_for
from tokenred.analysis.measure.intervals.bootstrap import StreamingMeans
from tokenred.analysis.measure.tokens.selections import (
    Flags,
    Floats,
    alive,
    chance_iou,
    iou,
    scores,
    spearman,
    survival,
)
from tokenred.analysis.result import FramedResult, plain_table
from tokenred.data.classes import ClassMap
from tokenred.reduced.trace import Trace

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Agreement", "agreement"]

_STATISTICS = ("iou", "survival", "scores")
_COLUMNS = (*_STATISTICS, "chance")


@dataclass(frozen=True, eq=False, repr=False)
class Agreement(FramedResult):
    """How far methods agree on the patches; ``print`` shows the last block.

    Attributes:
        frame: one row for each pair of strategies ``a``, ``b``, block and statistic:

            - ``iou``: patches that both keep ÷ patches that either keeps, after the block;
            - ``survival``: Spearman's correlation, over all patches, of how many blocks each has
              stayed in, up to this one;
            - ``scores``: Spearman's correlation of the scores in this block, over the patches that
              both methods still have (only where both methods score).

            ``mean`` over the images with its bootstrap interval; ``chance`` is what two methods
            that choose at random, as many patches each, would have on average. ``tokens`` counts
            the image tokens after the block.
    """

    def table(self) -> Table:
        last = self.frame[self.frame["layer"] == self.frame["layer"].max()]
        table = plain_table(
            f"Patches kept after the last block ({last['tokens'].iloc[0]} tokens): {self.about}",
            ["a", "b", "IoU", "by chance", "survival ρ", "scores ρ"],
            left=2,
        )
        for (a, b), rows in last.groupby(["a", "b"], sort=False):
            cells = {
                row["statistic"]: f"{row['mean']:.3f} ({row['low']:.3f}, {row['high']:.3f})"
                for row in rows.to_dict("records")
            }
            chance = f"{rows['chance'].max():.3f}"
            table.add_row(
                str(a), str(b), cells["iou"], chance, *(cells.get(x, "") for x in _STATISTICS[1:])
            )
        return table

    def plot(self, **options: Any) -> Figure:
        """See `tokenred.analysis.agreement_map`."""
        from tokenred.analysis.plots.agreement_map import agreement_map

        return agreement_map(self.frame, **options)


def agreement(
    model: nn.Module,
    data: Data,
    strategies: Strategies,
    *,
    removed: int | Sequence[int] | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    device: str | torch.device | None = None,
    seed: int = 0,
    level: float = 0.95,
    split: str | None = None,
    class_map: ClassMap = None,
    name: str | None = None,
    progress: bool = True,
) -> Agreement:
    """Compare which patches methods keep, on the same images and at the same counts.

    A patch is kept while a token of its position is alive: merging keeps the patch merged into,
    and EViT's fused token, which has no position, none.

    Args:
        model: dense, or a `ReducedViT`, whose base is then taken.
        data: see `tokenred.analysis.evaluate`.
        strategies: two or more, see `tokenred.analysis.parse_spec`. Their schedules are replaced.
        removed: by how many image tokens each block's number shrinks: one count, or a list that 0
            goes on; None for 8 a block, or half of all tokens where a model has too few for that.
            A fuser that adds a token drops one more, so that the counts match.
        limit, batch_size, workers, device, split, class_map, progress: as in `evaluate`.
        seed: of the choice of images and of the bootstrap.
        level: of the intervals.
        name: of the model, for titles.

    Raises:
        ConfigError: for fewer than two strategies, one with a budget, counts that one of them
            cannot meet, or numbers out of range.
        TokenredError: as `parse_spec`, `tokenred.wrap` and the data raise them.
    """
    check_level(level)
    base = base_of(model)
    contestants = lineup_at_counts(base, strategies, removed)
    if not isinstance(data, DataLoader):
        data = open_for(base, data, split=split, class_map=class_map)
    pairs = list(combinations(range(len(contestants)), 2))
    shape = (len(pairs), len(_COLUMNS), len(contestants[0].tokens))
    means = StreamingMeans(math.prod(shape), seed=seed)
    with image_stream(
        [each.model for each in contestants], data, batch_size=batch_size, workers=workers,
        limit=limit, device=device, amp=None, seed=seed, progress=progress, title="agreement",
    ) as stream:  # fmt: skip
        for images in stream:
            records = [_Record.of(each.model.run_with_trace(images)[1]) for each in contestants]
            found = np.stack([_compare(records[a], records[b]) for a, b in pairs], axis=1)
            means.add(found.reshape(len(images), -1))
    common = {
        "model": name or type(base).__name__,
        "data": getattr(data, "name", ""),
        "seed": seed,
    }
    frame = _frame(contestants, pairs, shape, means, level, common)
    notes = [
        f"{stream.count} images; in brackets: {level:.0%} bootstrap intervals over the images. "
        "ρ: Spearman's rank correlation, 0 by chance."
    ]
    notes += [f"{stream.skipped} unreadable images left out."] if stream.skipped else []
    return Agreement(frame, level, tuple(notes))


@dataclass(frozen=True, eq=False)
class _Record:
    kept: Flags
    scores: Floats

    @classmethod
    def of(cls, trace: Trace) -> _Record:
        return cls(alive(trace), scores(trace))


def _compare(a: _Record, b: _Record) -> Floats:
    """``(b, columns, L)``."""
    columns = (
        iou(a.kept, b.kept),
        spearman(survival(a.kept), survival(b.kept)),
        spearman(a.scores, b.scores),
        chance_iou(a.kept, b.kept),
    )
    return np.stack(columns, axis=1)


def _frame(
    contestants: Sequence[Contestant],
    pairs: Sequence[tuple[int, int]],
    shape: tuple[int, ...],
    means: StreamingMeans,
    level: float,
    common: dict[str, Any],
) -> pd.DataFrame:
    import pandas as pd

    low, high = (bound.reshape(shape) for bound in means.intervals(level))
    own, images = means.means.reshape(shape), means.counts.reshape(shape)
    layers = contestants[0].model.cost().layers
    first = next(layer.layer for layer in layers if layer.removed)
    rows = [
        {
            "a": contestants[a].label,
            "b": contestants[b].label,
            "layer": layer,
            "statistic": statistic,
            "mean": own[pair, column, layer],
            "low": low[pair, column, layer],
            "high": high[pair, column, layer],
            # Ranks of random choices do not correlate.
            "chance": own[pair, -1, layer] if statistic == "iou" else 0.0,
            "images": images[pair, column, layer],
            "tokens": layers[layer].tokens_out,
        }
        for pair, (a, b) in enumerate(pairs)
        for layer in range(first, len(layers))
        for column, statistic in enumerate(_STATISTICS)
        if images[pair, column, layer]
    ]
    return pd.DataFrame([row | common for row in rows])
