"""DPC-KNN."""

from typing import Annotated, Literal

from annotated_types import Ge

from tokenred.core.values import Blocks
from tokenred.strategies.fusers.mean import Mean
from tokenred.strategies.schedules.keep_count import Keep, KeepCount
from tokenred.strategies.selectors.density_peaks import DensityPeaks
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("dpcknn")
def dpcknn(
    *,
    keep: Keep = 0.7,
    layers: Blocks | Literal["all"] | None = None,
    neighbours: Annotated[int, Ge(2)] = 5,
    equal_weights: bool = False,
) -> Strategy:
    """Merge clusters around density peaks, before a block (DPC-KNN of Haurum et al., ICCVW 2023).

    Args:
        keep: share ρ of the tokens kept after each of `layers`, or counts; see `KeepCount`.
        layers: blocks before which tokens are merged; None for the quarters of the depth.
        neighbours, equal_weights: as for `DensityPeaks`; plain means need no training.
    """
    return Strategy(
        scorer=DensityPeaks(neighbours, equal_weights, layers),
        fuser=Mean(epsilon=1e-6),
        schedule=KeepCount(keep, layers),
        where="before_block",
    )
