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
    """Slow and fast tokens; none is lost (Evo-ViT, Xu et al., AAAI 2022).

    Designed for training; training and inference have the same form.

    Args:
        keep_rate: share of informative tokens, which pass the blocks.
        layers: blocks in which a stage starts; None for the thirds of the depth (4 and 8 of 12).
        t: weight of a block's attention relative to earlier blocks.
        representative: the other tokens follow a representative; False leaves them unchanged.
        stagewise: choose once per stage; False for every block, as at the start of the paper's
            training.
        reference: follow the released DeiT code, which has no representative.
    """
    # Nothing is removed, so nothing is scored.
    return Strategy(
        scorer="Random",
        router=SlowFast(keep_rate, layers, t, representative and not reference, stagewise),
    )
