"""Which patches methods keep, and how much two methods agree.

Records of patches are arrays ``(b, L, N0)``: images, blocks, patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from scipy.stats import hypergeom, rankdata
from torch import Tensor, nn

from tokenred.analysis.lineup import Strategies, lineup_at_counts
from tokenred.analysis.measure.inputs import Data
from tokenred.analysis.measure.per_image import means_over_images
from tokenred.analysis.result import FramedResult
from tokenred.analysis.terminal_table import plain_table
from tokenred.core.values import Count, PartOf, Size, checked
from tokenred.data.classes import ClassMap
from tokenred.reduced.trace import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]

_STATISTICS = ("iou", "survival", "scores")


def alive(trace: Trace) -> Flags:
    """Whether a token of each position is alive after each block.

    A token that represents no single patch (−1) keeps none alive.
    """
    kept = [
        _on_grid(index, torch.ones_like(index, dtype=torch.float64), trace.num_patches, 0.0)
        for index in trace.index_per_layer
    ]
    return np.stack(kept, axis=1) > 0


def scores(trace: Trace) -> Floats:
    """The scores used in each block; NaN for patches and blocks without one."""
    shape = (trace.index.shape[0], len(trace.index_per_layer), trace.num_patches)
    out = np.full(shape, np.nan)
    for step in trace.steps:
        if step.selection.score is not None:
            before = trace.index_per_layer[step.layer - 1] if step.layer else trace.start_index
            values = step.selection.score.detach().double()
            out[:, step.layer] = _on_grid(before, values, trace.num_patches, torch.nan)
    return out


def _on_grid(index: Tensor, values: Tensor, patches: int, empty: float) -> Floats:
    """``(b, n)`` values at their positions, ``(b, N0)``."""
    # A spare entry takes tokens without a position.
    out = torch.full((index.shape[0], patches + 1), empty, dtype=values.dtype, device=index.device)
    placed = out.scatter(1, torch.where(index >= 0, index, patches), values)
    grid: Floats = placed[:, :patches].cpu().numpy()
    return grid


def iou(a: Flags, b: Flags) -> Floats:
    """Intersection over union along the last axis, 0 … 1; NaN if both are empty."""
    return _ratio((a & b).sum(axis=-1), (a | b).sum(axis=-1))


def chance_iou(a: Flags, b: Flags) -> Floats:
    """The expected `iou` of two random choices with the sizes of ``a`` and ``b``."""
    found = np.frompyfunc(_chance, 3, 1)(a.sum(axis=-1), b.sum(axis=-1), a.shape[-1])
    return np.asarray(found, dtype=np.float64)


@lru_cache(maxsize=4096)
def _chance(a: int, b: int, patches: int) -> float:
    """The mean of the intersection over union, which follows a hypergeometric distribution."""
    if not a + b:
        return float("nan")
    common = np.arange(max(0, a + b - patches), min(a, b) + 1)
    return float((hypergeom.pmf(common, patches, a, b) * common / (a + b - common)).sum())


def spearman(x: Floats, y: Floats) -> Floats:
    """Spearman's rank correlation along the last axis, −1 … 1; ties share their mean rank.

    Entries that are NaN in either are ignored. NaN if one of the two is constant.
    """
    known = ~(np.isnan(x) | np.isnan(y))
    # Ignored entries rank last, and so do not change other ranks.
    ranks = [np.where(known, rankdata(np.where(known, v, np.inf), axis=-1), 0) for v in (x, y)]
    count = known.sum(axis=-1, keepdims=True).clip(1)
    first, second = (
        np.where(known, rank - rank.sum(axis=-1, keepdims=True) / count, 0) for rank in ranks
    )
    scale = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    return _ratio((first * second).sum(axis=-1), scale)


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> Floats:
    """Division that gives NaN for a zero denominator."""
    out: Floats = np.full(above.shape, np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


@dataclass(frozen=True, eq=False, repr=False)
class Agreement(FramedResult):
    """Agreement of methods on the kept patches; ``print`` shows the last block.

    Attributes:
        frame: one row for each pair of strategies ``a``, ``b``, block and statistic:

            - ``iou``: patches that both keep ÷ patches that either keeps, after the block;
            - ``survival``: Spearman's correlation, over all patches, of the number of blocks each
              has stayed in, up to this one;
            - ``scores``: Spearman's correlation of the scores in this block, over the patches that
              both methods still have (only where both methods score).

            ``mean`` over the images with its bootstrap interval; ``chance`` is the expected value
            for two methods that choose the same numbers of patches at random. ``tokens`` counts
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
            ranks = (cells.get(name, "") for name in _STATISTICS[1:])
            table.add_row(str(a), str(b), cells["iou"], chance, *ranks)
        return table

    def plot(self, **options: Any) -> Figure:
        """See `tokenred.analysis.agreement_map`."""
        from tokenred.analysis.plots.agreement_map import agreement_map

        return agreement_map(self.frame, **options)


@checked
def agreement(
    model: nn.Module,
    data: Data,
    strategies: Strategies,
    *,
    removed: Count | Sequence[Count] | None = None,
    limit: Size | None = None,
    batch_size: Size = 32,
    workers: Count = 0,
    device: str | torch.device | None = None,
    seed: Count = 0,
    level: PartOf = 0.95,
    split: str | None = None,
    class_map: ClassMap = None,
    name: str | None = None,
    progress: bool = True,
) -> Agreement:
    """Compare which patches methods keep, on the same images and at the same counts.

    A patch is kept while a token with its position remains: merging keeps the patch that others are
    merged into, and EViT's fused token, which has no position, keeps none.

    Args:
        model: a dense model, or a `ReducedViT`, whose base is then used.
        data: see `tokenred.analysis.evaluate`.
        strategies: two or more, see `tokenred.analysis.parse_spec`. Their schedules are replaced.
        removed: number of image tokens removed per block: one count, or a list, padded with 0; None
            for 8 per block, or half of all tokens if a model has too few. A fuser that adds a token
            removes one more, so that the counts match.
        limit, batch_size, workers, device, split, class_map, progress: as in `evaluate`.
        seed: seed of the image subset and the bootstrap.
        level: level of the intervals.
        name: name of the model, for titles; by default the one that `load_model` takes.

    Raises:
        ConfigError: for fewer than two strategies, a strategy with a budget, counts that one of
            them cannot meet, or numbers out of range.
        TokenredError: as raised by `parse_spec`, `tokenred.wrap` and the data.
    """
    entries = lineup_at_counts(model, strategies, removed)
    pairs = list(combinations(range(len(entries)), 2))
    layers = entries[0].model.cost().layers
    first = next(layer.layer for layer in layers if layer.removed)
    rows = [
        {
            "a": entries[a].label,
            "b": entries[b].label,
            "layer": layer.layer,
            "statistic": statistic,
            "tokens": layer.tokens_out,
        }
        for a, b in pairs
        for statistic in (*_STATISTICS, "chance")
        for layer in layers[first:]
    ]

    def measure(images: Tensor) -> Floats:
        traces = [entry.model.run_with_trace(images)[1] for entry in entries]
        kept, scored = list(map(alive, traces)), list(map(scores, traces))
        # The number of blocks each patch has stayed in, up to each block.
        stayed = [flags.cumsum(axis=1).astype(np.float64) for flags in kept]
        found = [
            values[:, first:]
            for a, b in pairs
            for values in (
                iou(kept[a], kept[b]),
                spearman(stayed[a], stayed[b]),
                spearman(scored[a], scored[b]),
                chance_iou(kept[a], kept[b]),
            )
        ]
        return np.hstack(found)

    frame, notes = means_over_images(
        [entry.model for entry in entries], data, rows, measure, title="agreement", level=level,
        name=name, seed=seed, split=split, class_map=class_map, batch_size=batch_size,
        workers=workers, limit=limit, device=device, progress=progress,
    )  # fmt: skip
    own, by_chance = frame["statistic"] == "iou", frame["statistic"] == "chance"
    # Ranks of random choices are uncorrelated.
    frame.insert(len(rows[0]), "chance", 0.0)
    frame.loc[own, "chance"] = frame.loc[by_chance, "mean"].to_numpy()
    frame = frame[~by_chance & (frame["images"] > 0)].reset_index(drop=True)
    return Agreement(frame, level, (*notes, "ρ: Spearman's rank correlation, 0 by chance."))
