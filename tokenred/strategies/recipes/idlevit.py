"""IdleViT."""

from typing import Literal

from tokenred.core.values import Blocks, Share, Shares
from tokenred.strategies.routers.idle import Idle
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("idlevit")
def idlevit(
    *,
    keep_ratios: Share | Shares = 0.7,
    layers: Blocks | None = None,
    cut: Literal["both", "inter", "intra", "none"] = "both",
) -> Strategy:
    """Tokens idle and come back; none is lost (IdleViT, Xu et al., AJCAI 2023, arXiv 2310.05654).

    Needs fine-tuning (`tokenred.training.losses`, "idlevit"), in which all tokens take part, behind
    a mask.

    The arguments are those of `Idle`.
    """
    # Nothing is removed, so nothing is scored.
    return Strategy(scorer="Random", router=Idle(keep_ratios, layers, cut))
