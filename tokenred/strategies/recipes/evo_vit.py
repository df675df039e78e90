"""Evo-ViT."""

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
        keep_rate, layers, t, representative, stagewise: as for `SlowFast`.
        reference: follow the released DeiT code, which has no representative.
    """
    # Nothing is removed, so nothing is scored.
    return Strategy(
        scorer="Random",
        router=SlowFast(keep_rate, layers, t, representative and not reference, stagewise),
    )
