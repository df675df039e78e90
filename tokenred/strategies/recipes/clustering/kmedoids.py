"""K-Medoids."""

from __future__ import annotations

from tokenred.core.values import Count, LaterBlocks
from tokenred.strategies.schedules.keep_count import Keep, KeepCount
from tokenred.strategies.selectors.medoids import Iterations, Medoids
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("kmedoids")
def kmedoids(
    *,
    keep: Keep = 0.7,
    layers: LaterBlocks | None = None,
    equal_weights: bool = False,
    iterations: Iterations = 3,
    start: Count | None = None,
) -> Strategy:
    """Keep cluster medoids, before a block (K-Medoids of Haurum et al., ICCVW 2023).

    Args:
        keep: share ρ of the initial tokens to keep after each of `layers`, ⌊ρN0⌋, ⌊ρ²N0⌋ …; or a
            list of counts.
        layers: blocks before which tokens are dropped, from 1 on, since the attention of the block
            before is read; None for the quarters of the depth.
        equal_weights: do not weight tokens by the attention that they receive.
        iterations: how often tokens are assigned and medoids chosen again.
        start: the first medoid with equal weights, see `Medoids`.
    """
    return Strategy(
        scorer=Medoids(equal_weights, iterations, start),
        schedule=KeepCount(keep, layers, earliest=1),
        where="before_block",
    )
