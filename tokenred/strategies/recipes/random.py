"""Random pruning."""

from tokenred.core.values import Blocks, Count, Share, Shares
from tokenred.strategies.recipes.topk import topk
from tokenred.strategies.scorers.random import Random
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("random")
def random(
    *, keep_rate: Share | Shares = 0.7, layers: Blocks | None = None, seed: Count = 0
) -> Strategy:
    """Prune at random, the same patches of every image: the baseline that methods must beat.

    Which patches these are depends on the seed, and with it the accuracy: average over several.

    Args:
        keep_rate: keep rate ρ relative to the remaining tokens; one, or one for each of `layers`.
        layers: blocks that remove tokens; None for the quarters of the depth (3, 6, 9 of 12).
        seed: seed of the `Random` scorer.
    """
    return topk(keep_rate=keep_rate, layers=layers, scorer=Random(seed=seed))
