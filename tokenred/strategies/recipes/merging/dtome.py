"""DToMe."""

from tokenred.strategies.selectors.matching.threshold_matching import (
    Cosine,
    Cosines,
    ThresholdMatching,
)
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("dtome")
def dtome(
    *,
    thresholds: Cosine | Cosines = 0.85,
    proportional_attention: bool = True,
    reference: bool = False,
) -> Strategy:
    """Merge as many tokens as the image allows (DToMe of DyMU, Wang et al., arXiv 2504.17040).

    Args:
        thresholds: minimum similarity for tokens to merge; one number, or one for each block, from
            `tokenred.calibrate`. The default is ours.
        proportional_attention: add ``log s`` in the attention.
        reference: average pooling counts a merged token once, as in the authors' code.
    """
    return Strategy(
        scorer=ThresholdMatching(thresholds, "released"),
        fuser="merge",
        proportional_attention=proportional_attention,
        reference=reference,
    )
