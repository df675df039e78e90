"""MSTM."""

from typing import Literal

from tokenred.core.values import Blocks, Positive, Share, Shares
from tokenred.strategies.base import Scorer, scorers
from tokenred.strategies.schedules.keep_ratio import KeepRatio
from tokenred.strategies.scorers.cls_attn import CLSAttn
from tokenred.strategies.selectors.partnered import Partnered
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("mstm")
def mstm(
    *,
    keep_rate: Share | Shares = 0.7,
    layers: Blocks | None = None,
    weights: Literal["importance", "size", "similarity"] = "importance",
    temperature: Positive = 0.1,
    multi_scale: bool = True,
    scorer: str | Scorer | None = None,
) -> Strategy:
    """Multi-scale features, and merging of non-crucial tokens (MSTM, Bian et al., 2306.04897).

    Only the abstract was available. It says: scores split the tokens into crucial and non-crucial
    ones, each non-crucial token merges into a similar crucial one, and features of several scales
    are fused before any token is removed. Our choices are the blocks, the keep rate, the score
    (head-mean CLS attention, or attention received if there is no CLS), the similarity (cosine of
    the features, one partner each), the weights of the mean, and the second embedding at twice the
    stride, which starts at zero and is learned in fine-tuning.

    Args:
        keep_rate: share ρ of crucial tokens among the remaining ones; one, or one for each of
            `layers`.
        layers: blocks that merge tokens; None for the quarters of the depth (3, 6, 9 of 12).
        weights, temperature: as for `Partnered`.
        multi_scale: add the second patch embedding; False needs no training.
        scorer: use another scorer for the importance.
    """
    if scorer is None:
        scorer = CLSAttn(aggregate="mean", without_cls="column_sum")
    return Strategy(
        scorer=Partnered(scorers.create(scorer), weights, temperature),
        fuser="merge",
        schedule=KeepRatio(keep_rate, layers),
        embedding="multi_scale" if multi_scale else "plain",
    )
