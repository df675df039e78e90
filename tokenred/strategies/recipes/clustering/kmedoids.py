"""K-Medoids."""

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
        keep: share ρ of the tokens kept after each of `layers`, or counts; see `KeepCount`.
        layers: blocks before which tokens are dropped, from 1 on, since the attention of the block
            before is read; None for the quarters of the depth.
        equal_weights, iterations, start: as for `Medoids`.
    """
    return Strategy(
        scorer=Medoids(equal_weights, iterations, start),
        schedule=KeepCount(keep, layers, earliest=1),
        where="before_block",
    )
