"""EViT."""

from tokenred.core.values import Blocks, Share, Shares
from tokenred.strategies.schedules.keep_ratio import KeepRatio
from tokenred.strategies.scorers.cls_attn import CLSAttn
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("evit")
def evit(
    *,
    keep_rate: Share | Shares = 0.7,
    layers: Blocks | None = None,
    fuse: bool = True,
    proportional_attention: bool = False,
) -> Strategy:
    """Keep what the CLS token attends to, fuse the rest into one (EViT, Liang et al., ICLR 2022).

    Args:
        keep_rate: keep rate ρ relative to the remaining tokens; one, or one for each of `layers`.
        layers: blocks that remove tokens; None for the quarters of the depth (3, 6, 9 of 12).
        fuse: append the weighted sum of the dropped tokens as one token.
        proportional_attention: add ``log s`` in the attention; not part of the method.
    """
    return Strategy(
        scorer=CLSAttn(aggregate="mean"),
        fuser="fused_token" if fuse else "prune",
        schedule=KeepRatio(keep_rate, layers),
        proportional_attention=proportional_attention,
    )
