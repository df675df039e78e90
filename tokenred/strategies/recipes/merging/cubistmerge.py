"""CubistMerge."""

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
        rows_removed, columns_removed, layers: as for `GridShrink`; None for 1, or 0 on a grid that
            has only one.
        exact: as for `GridMatching`; True by default, unless ``reference`` is given.
        reference: of two tokens that choose the same, one is lost, as in the authors' code.
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
