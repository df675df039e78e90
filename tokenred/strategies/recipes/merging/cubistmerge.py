"""CubistMerge."""

from __future__ import annotations

from tokenred.core.values import Blocks, Count
from tokenred.strategies.fusers.maximum import Maximum
from tokenred.strategies.schedules.grid_shrink import Counts, GridShrink
from tokenred.strategies.selectors.matching.grid_matching import GridMatching
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("cubistmerge")
def cubistmerge(
    *,
    rows_removed: Count | Counts | None = None,
    columns_removed: Count | Counts | None = None,
    layers: Blocks | None = None,
    exact: bool | None = None,
    reference: bool = False,
) -> Strategy:
    """Merge neighbours, keeping a rectangle (CubistMerge, Gong and Lis, arXiv 2509.21764).

    Args:
        rows_removed, columns_removed: number removed before each of `layers`; one number, or a
            list. None for 1, or 0 on a grid that has only one.
        layers: blocks; None for the quarters of the depth.
        exact: whether a token that receives two takes the larger entries of both; True by default,
            unless ``reference`` is given.
        reference: as in the authors' program, one of the two is lost.
    """
    fit = rows_removed is None and columns_removed is None
    rows, columns = (1 if n is None else n for n in (rows_removed, columns_removed))
    shrink = GridShrink(rows, columns, layers, fit)
    return Strategy(
        scorer=GridMatching(shrink, not reference if exact is None else exact),
        fuser=Maximum(),
        schedule=shrink,
        where="before_block",
    )
