"""Uniform dropping over the grid."""

from tokenred.core.values import Blocks, Share, Shares
from tokenred.strategies.schedules.keep_ratio import KeepRatio
from tokenred.strategies.selectors.grid_drop import GridDrop
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("uniform")
def uniform(*, keep_rate: Share | Shares = 0.7, layers: Blocks = (0,)) -> Strategy:
    """Drop tokens evenly over the grid, once before the first block: a baseline without any score.

    Dropped tokens cost nothing in any block. Only a method that beats this has a useful score.

    Args:
        keep_rate: keep rate ρ relative to the remaining tokens; one, or one for each of `layers`.
        layers: blocks before which tokens are removed.
    """
    schedule = KeepRatio(keep_rate, layers)
    return Strategy(scorer=GridDrop(), schedule=schedule, where="before_block")
