"""Evo-ViT."""

from __future__ import annotations

from tokenred.core.values import LaterBlocks, Probability, Share
from tokenred.strategies.routers.slow_fast import SlowFast
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("evo-vit")
def evo_vit(
    *,
    keep_rate: Share = 0.5,
    layers: LaterBlocks | None = None,
    t: Probability = 0.5,
    representative: bool = True,
    stagewise: bool = True,
    reference: bool = False,
) -> Strategy:
    """Slow and fast tokens, none is lost (Evo-ViT, Xu et al., AAAI 2022).

    Made to be trained with; training and inference have the same form.

    Args:
        keep_rate: share of all tokens that is informative and passes the blocks.
        layers: blocks in which a stage starts; None for the thirds of the depth (4 and 8 of 12).
        t: how much a block's attention counts against those before it.
        representative: the rest follows a token that stands in for it; else it stays as it is.
        stagewise: choose once a stage; False for every block, as the paper's training begins.
        reference: as the released program for DeiT, which has no representative.
    """
    # Nothing is removed, so nothing is scored.
    return Strategy(
        scorer="Random",
        router=SlowFast(
            keep_rate,
            layers,
            t,
            representative and not reference,
            stagewise,
        ),
    )
