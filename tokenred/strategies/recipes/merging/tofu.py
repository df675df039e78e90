"""ToFu."""

from tokenred.core.values import Share, Shares
from tokenred.strategies.fusers.mlerp import MLERP, Mode
from tokenred.strategies.recipes.merging.tome import Merges, merges
from tokenred.strategies.schedules.keep_ratio import KeepRatio
from tokenred.strategies.selectors.matching.bipartite_matching import BipartiteMatching
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("tofu")
def tofu(
    *,
    r: Merges = 8,
    ratio: Share | Shares | None = None,
    modes: tuple[Mode, ...] | None = None,
    proportional_attention: bool | None = None,
    reference: bool = False,
) -> Strategy:
    """Prune in the first half of the blocks, merge at full norm in the second (ToFu, WACV 2024).

    Args:
        r: tokens removed in each block, as for ``tome``.
        ratio: instead of ``r``, the share of all tokens, including the prefix, to keep in a block,
            as in PiToMe's copy of the method; one number, or a list with one for each block.
        modes: what happens in each block, see `MLERP`; None for ``prune``, then ``mlerp``.
        proportional_attention: add ``log s`` in the attention; by default unless ``ratio`` is used.
        reference: ``mlerp`` takes a size-weighted mean, and average pooling counts a merged token
            once, as in the released programs.
    """
    if proportional_attention is None:
        proportional_attention = ratio is None
    return Strategy(
        scorer=BipartiteMatching(order="released"),
        fuser=MLERP(modes=modes, weighted=reference),
        schedule=merges(r) if ratio is None else KeepRatio(ratio, "all", of="sequence"),
        proportional_attention=proportional_attention,
        reference=reference,
    )
