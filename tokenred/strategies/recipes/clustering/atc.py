"""ATC."""

from typing import Literal

from tokenred.core.values import Blocks
from tokenred.strategies.schedules.keep_count import Keep, KeepCount
from tokenred.strategies.selectors.matching.agglomerative import Agglomerative
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("atc")
def atc(
    *,
    keep: Keep = 0.7,
    layers: Blocks | Literal["all"] | None = None,
    linkage: Literal["single", "complete", "average"] = "average",
    proportional_attention: bool = True,
    reference: bool = False,
) -> Strategy:
    """Merge agglomerative clusters (ATC, Haurum et al., ECCV 2024).

    Args:
        keep: share ρ of the tokens kept after each of `layers`, or counts; see `KeepCount`.
        layers: blocks that merge; None for the quarters of the depth (3, 6, 9 of 12, fine-tuned),
            ``"all"`` for every block (off the shelf).
        linkage: the distance of clusters; the authors run ``"complete"`` on DeiT, ``"average"`` on
            MAE and ``"single"`` on SWAG models.
        proportional_attention: add ``log s`` in the attention, and weight merges by size; otherwise
            sizes are not tracked.
        reference: average pooling counts a merged token once, as in the authors' code.
    """
    return Strategy(
        scorer=Agglomerative(linkage),
        fuser="merge" if proportional_attention else "mean",
        schedule=KeepCount(keep, layers),
        proportional_attention=proportional_attention,
        reference=reference,
    )
