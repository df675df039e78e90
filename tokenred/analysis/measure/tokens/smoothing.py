"""Oversmoothing: how alike the tokens become, block by block, under each strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tokenred.analysis.level import check_level
from tokenred.analysis.lineup import Contestant, Strategies, lineup
from tokenred.analysis.measure.context import base_of
from tokenred.analysis.measure.image_stream import image_stream
from tokenred.analysis.measure.inputs import Data, open_for
from tokenred.analysis.measure.intervals.bootstrap import StreamingMeans
from tokenred.analysis.measure.machine import weights_digest
from tokenred.analysis.measure.tokens.token_statistics import TOKEN_STATISTICS, lost_share
from tokenred.analysis.result import FramedResult, plain_table
from tokenred.core.errors import InputError
from tokenred.data.classes import ClassMap
from tokenred.reduced.trace import Trace
from tokenred.strategies.config import fingerprint_if_any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Oversmoothing", "oversmoothing"]

LOST = "lost"


@dataclass(frozen=True, eq=False, repr=False)
class Oversmoothing(FramedResult):
    """How alike the image tokens are after each block; ``print`` shows the last one.

    Attributes:
        frame: one row for each strategy, block and statistic. ``statistic`` is ``cosine`` (mean
            cosine similarity of pairs), ``effective_rank``, ``high_frequency`` (share of the
            energy outside the mean token) or ``lost`` (share of the tokens dropped in this block
            of which nothing reaches a kept one; only blocks that drop); see
            `tokenred.analysis.measure.tokens.token_statistics`. ``mean`` over the images with its
            bootstrap interval ``low`` to ``high``; ``difference`` from the dense model in the same
            block, paired by image, with its own. ``tokens`` counts the image tokens after the
            block, ``removed`` those dropped in it, ``gmacs`` the whole model.
    """

    def table(self) -> Table:
        last = self.frame[self.frame["layer"] == self.frame["layer"].max()]
        table = plain_table(
            f"Image tokens after the last block: {self.about}",
            ["strategy", "GMACs", "tokens", "cosine similarity", "effective rank",
             "energy outside the mean (%)", "dropped tokens lost (%)"],
        )  # fmt: skip
        for strategy, rows in last.groupby("strategy", sort=False):
            by = rows.set_index("statistic")
            table.add_row(
                str(strategy),
                f"{by['gmacs'].iloc[0]:.3f}",
                f"{by['tokens'].iloc[0]}",
                _with_interval(by.loc["cosine"], 3),
                _with_interval(by.loc["effective_rank"], 2),
                _with_interval(by.loc["high_frequency"], 1, 100),
                self._all_lost(strategy),
            )
        return table

    def _all_lost(self, strategy: object) -> str:
        """The share lost of all that were dropped, in whichever block."""
        mine = (self.frame["strategy"] == strategy) & (self.frame["statistic"] == LOST)
        rows = self.frame[mine]
        dropped = rows["removed"].sum()
        return f"{100 * (rows['mean'] * rows['removed']).sum() / dropped:.1f}" if dropped else ""

    def plot(self, **options: Any) -> Figure:
        """See `tokenred.analysis.smoothing_curves`."""
        from tokenred.analysis.plots.smoothing_curves import smoothing_curves

        return smoothing_curves(self.frame, **options)


def oversmoothing(
    model: nn.Module,
    data: Data,
    strategies: Strategies,
    *,
    gmacs_share: float | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    seed: int = 0,
    level: float = 0.95,
    split: str | None = None,
    class_map: ClassMap = None,
    name: str | None = None,
    progress: bool = True,
) -> Oversmoothing:
    """Measure how alike image tokens become on their way through the blocks.

    The dense model comes first, then each strategy, all on the same images. Features are those
    that leave a block, before the model's final norm. Images pass in batches and only sums are
    kept, so memory does not grow with their number.

    **Which tokens count: those alive after the block.** Features of dropped tokens no longer
    exist, so a method may look less smooth because of *which* tokens it keeps as well as because
    of what happens to them. Pruning the same selection (``gtp:fuser=prune``), or one at random
    (``random``), tells the two apart.

    Source: GTP-ViT, Fig. 6 (Xu et al., WACV 2024), with intervals and further statistics.

    Args:
        model: dense, or a `ReducedViT`, whose base is then taken.
        data: see `tokenred.analysis.evaluate`.
        strategies: what `tokenred.analysis.parse_spec` takes, or a mapping from labels to it.
        gmacs_share: of the dense model's GMACs that each strategy may cost, so that they are
            compared at the same cost (`at_budget`); None for their own schedules.
        limit, batch_size, workers, device, amp, split, class_map, progress: as in `evaluate`.
        seed: of the choice of images and of the bootstrap.
        level: of the intervals.
        name: of the model, for titles.

    Raises:
        ConfigError: for numbers out of range, or names that come twice.
        DataError: for data that is empty or does not fit the model.
        InputError: for images of another size than the model's own, or features that are no
            finite numbers.
        TokenredError: as `parse_spec` and `tokenred.wrap` raise them.
    """
    check_level(level)
    base = base_of(model)
    contestants = lineup(base, strategies, gmacs_share=gmacs_share)
    if not isinstance(data, DataLoader):
        data = open_for(base, data, split=split, class_map=class_map)
    keys = [(at, *key) for at, each in enumerate(contestants) for key in _keys(each)]
    means = StreamingMeans(len(keys), seed=seed)
    with image_stream(
        [each.model for each in contestants], data, batch_size=batch_size, workers=workers,
        limit=limit, device=device, amp=amp, seed=seed, progress=progress, title="oversmoothing",
    ) as stream:  # fmt: skip
        for images in stream:
            rows = [_values(each, images) for each in contestants]
            means.add(torch.cat(rows, dim=1).cpu().numpy())
    common = {
        "model": name or type(base).__name__,
        "data": getattr(data, "name", ""),
        "weights": weights_digest(base),
        "seed": seed,
    }
    return Oversmoothing(
        _frame(contestants, keys, means, level, common),
        level,
        (
            f"{stream.count} images; in brackets, or beside the mean in the frame: {level:.0%} "
            "bootstrap intervals over the images.",
            "Only tokens alive after the block count. A smaller number of them bounds the "
            "effective rank.",
            *([f"{stream.skipped} unreadable images left out."] if stream.skipped else []),
        ),
    )


def _keys(each: Contestant) -> list[tuple[int, str]]:
    layers = each.model.cost().layers
    alive = [(layer.layer, name) for layer in layers for name in TOKEN_STATISTICS]
    return alive + [(layer.layer, LOST) for layer in layers if layer.removed]


def _values(each: Contestant, images: Tensor) -> Tensor:
    """``(b, columns)`` in the order of `_keys`."""
    _, trace = each.model.run_with_trace(images)
    _check(each, trace)
    alive = [
        statistic(features[:, trace.num_prefix :])
        for features in trace.features
        for statistic in TOKEN_STATISTICS.values()
    ]
    return torch.stack([*alive, *(lost_share(step) for step in trace.steps)], dim=1)


def _check(each: Contestant, trace: Trace) -> None:
    if trace.tokens_per_layer != each.tokens:
        raise InputError(
            f"{each.label}: expected images of the model's own size, which leave "
            f"{each.tokens[-1]} image tokens, got others, which leave "
            f"{trace.tokens_per_layer[-1]}; resize them."
        )
    if not torch.isfinite(trace.features[-1]).all():
        raise InputError(
            f"{each.label}: expected numbers from the last block, got NaN or infinite ones; check "
            "the weights, and the precision."
        )


def _frame(
    contestants: Sequence[Contestant],
    keys: Sequence[tuple[int, int, str]],
    means: StreamingMeans,
    level: float,
    common: dict[str, Any],
) -> pd.DataFrame:
    import pandas as pd

    costs = [each.model.cost() for each in contestants]
    prints = ["", *(fingerprint_if_any(each.model.strategy) for each in contestants[1:])]
    places = {key: column for column, key in enumerate(keys)}
    own, low, high = means.means, *means.intervals(level)
    rows = []
    for column, (at, layer, statistic) in enumerate(keys):
        row = {
            "strategy": contestants[at].label,
            "method": contestants[at].method,
            "layer": layer,
            "statistic": statistic,
            "mean": own[column],
            "low": low[column],
            "high": high[column],
            "images": means.counts[column],
            "gmacs": costs[at].gmacs,
            "tokens": costs[at].layers[layer].tokens_out,
            "removed": costs[at].layers[layer].removed,
        }
        reference = places.get((0, layer, statistic))
        if at and reference is not None:
            gap = means.differences([column], [reference], level)[:, 0]
            row |= dict(zip(("difference", "difference_low", "difference_high"), gap, strict=True))
        rows.append(row | {"fingerprint": prints[at]} | common)
    return pd.DataFrame(rows)


def _with_interval(row: pd.Series, digits: int, factor: float = 1) -> str:
    mean, low, high = (f"{factor * row[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low}, {high})"
