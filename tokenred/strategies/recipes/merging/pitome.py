"""PiToMe."""

from typing import Literal

from tokenred.core.values import Share, Shares
from tokenred.strategies.schedules.keep_ratio import KeepRatio
from tokenred.strategies.selectors.matching.energy_matching import EnergyMatching, Margin, Slope
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("pitome")
def pitome(
    *,
    ratio: Share | Shares = 0.9125,
    split: Literal["bsm_first", "bsm_last", "energy", "bsm"] = "bsm_first",
    margins: tuple[Margin, ...] | None = None,
    alpha: Slope = 1.0,
    reference: bool = False,
) -> Strategy:
    """Merge tokens, protecting informative ones (PiToMe, Tran et al., NeurIPS 2024).

    Merges are weighted by size; as in the authors' code, attention is not proportional.

    Args:
        ratio: share of the image tokens kept in a block, ⌈ratio·n⌉; one number for every block, or
            a list with one for each. 0.9125 is the authors' ratio for DeiT.
        split, margins, alpha: as for `EnergyMatching`; the authors use ``"bsm_last"`` for MAE
            models and margins of ``0.9(1 − l/L)`` for AugReg models.
        reference: average pooling counts a merged token once, as in the authors' code.
    """
    return Strategy(
        scorer=EnergyMatching(split, margins, alpha),
        fuser="merge",
        schedule=KeepRatio(ratio, "all"),
        reference=reference,
    )
