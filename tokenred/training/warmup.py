"""Warm up a reduction: from removing nothing to everything that the strategy removes."""

from __future__ import annotations

import math
from dataclasses import replace

from tokenred.reduced.model import ReducedViT
from tokenred.strategies.routers import Idle
from tokenred.strategies.schedules import KeepRatio, PerLayer
from tokenred.strategies.score_mods import TopKeys
from tokenred.strategies.strategy import Strategy

__all__ = ["reduction_share", "warmed"]

Ratio = float | tuple[float, ...]


def reduction_share(epoch: int, warmup: tuple[int, int] | None) -> float:
    """The share of the reduction that is active in an epoch, from 0 to 1.

    Args:
        epoch: from 0.
        warmup: (start, length): 0 before ``start``, then half a cosine up to 1; None for 1.

    Source: EViT (Liang et al., ICLR 2022), training from scratch: start 10, length 100.
    """
    if warmup is None:
        return 1.0
    start, length = warmup
    if epoch < start:
        return 0.0
    if epoch >= start + length:
        return 1.0
    return (1 - math.cos(math.pi * (epoch - start) / length)) / 2


def warmed(reduced: ReducedViT, share: float) -> Strategy:
    """The strategy of a model, scaled to a share of its reduction.

    Keep rates of tokens, and of the keys in Tri-Level's mask, go from 1 to the strategy's own
    value; counts are multiplied by the share.

    Args:
        reduced: the model with the whole reduction.
        share: from 0, nothing removed, to 1, the strategy itself.
    """
    whole = reduced.strategy
    if share >= 1:
        return whole
    router, schedule = whole.router, whole.schedule
    if isinstance(router, Idle):
        router = replace(router, keep_ratios=_nearer_one(router.keep_ratios, share))
    if isinstance(schedule, KeepRatio):
        schedule = replace(schedule, ratio=_nearer_one(schedule.ratio, share))
    else:
        # For any schedule, its counts on this model are known.
        removed = (layer.removed for layer in reduced.cost().layers)
        schedule = PerLayer(tuple(round(count * share) for count in removed))
    score_mods = tuple(
        replace(mod, ratio=1 - (1 - mod.ratio) * share) if isinstance(mod, TopKeys) else mod
        for mod in whole.score_mods
    )
    return whole.replace(router=router, schedule=schedule, score_mods=score_mods)


def _nearer_one(ratio: Ratio, share: float) -> Ratio:
    if isinstance(ratio, tuple):
        return tuple(1 - (1 - each) * share for each in ratio)
    return 1 - (1 - ratio) * share
