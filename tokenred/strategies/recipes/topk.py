"""Top-K pruning."""

from tokenred.core.values import Blocks, Share, Shares
from tokenred.strategies.base import Scorer
from tokenred.strategies.schedules.keep_ratio import KeepRatio
from tokenred.strategies.scorers.cls_attn import CLSAttn
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("topk")
def topk(
    *,
    keep_rate: Share | Shares = 0.7,
    layers: Blocks | None = None,
    scorer: str | Scorer | None = None,
    reference: bool = False,
) -> Strategy:
    """Keep what the CLS token attends to, prune the rest (Top-K of Haurum et al., ICCVW 2023).

    Without a CLS token, the attention received from all tokens is the score.

    Args:
        keep_rate: keep rate ρ relative to the remaining tokens, ⌈ρn⌉; one, or one for each of
            `layers`.
        layers: blocks that remove tokens; None for the quarters of the depth (3, 6, 9 of 12).
        scorer: use another scorer instead.
        reference: use the counts of the authors' code: ⌊ρ·N0⌋, ⌊ρ²·N0⌋ … of the N0 tokens at the
            start, or the same for each given rate.
    """
    if scorer is None:
        scorer = CLSAttn(aggregate="mean", without_cls="column_sum")
    schedule = KeepRatio(keep_rate, layers)
    if reference:
        schedule = schedule.replace(rounding="floor", of="start")
    return Strategy(scorer, schedule=schedule)
