"""AdaMerge."""

from typing import Literal

from tokenred.core.values import Count
from tokenred.strategies.selectors.matching.salience_matching import (
    Deviation,
    Mean,
    SalienceMatching,
    Steepness,
)
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("adamerge")
def adamerge(
    *,
    r_max: Count = 14,
    affinity: Literal["cosine", "dot"] = "cosine",
    alpha: Steepness = 1.0,
    temperature: Steepness = 1.0,
    mean: tuple[Mean, ...] | None = None,
    std: tuple[Deviation, ...] | None = None,
) -> Strategy:
    """Merge before a block, more if tokens are alike (AdaMerge, Lee et al., arXiv 2605.27465).

    The arguments are those of `SalienceMatching`; ``mean`` and ``std`` come from
    `tokenred.calibrate`, and None merges half of ``r_max`` in every image.
    """
    return Strategy(
        scorer=SalienceMatching(r_max, affinity, alpha, temperature, mean, std),
        fuser="mean",
        where="before_block",
    )
