"""ToMeCIS."""

from tokenred.strategies.recipes.merging.tome import Merges, merges
from tokenred.strategies.selectors.matching.bipartite_matching import BipartiteMatching
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("tomecis")
def tomecis(
    *, r: Merges = 8, proportional_attention: bool = True, reference: bool = False
) -> Strategy:
    """ToMe with merges weighted by class importance (ToMeCIS, Seol et al., IECON 2023).

    The weight of a token is the mean attention of CLS to it, times the norm of its value.

    Args:
        r: as for ``tome``.
        proportional_attention: add ``log s`` in the attention.
        reference: average pooling counts a merged token once, as in the authors' code.
    """
    return Strategy(
        scorer=BipartiteMatching(weights="importance"),
        fuser="merge",
        schedule=merges(r),
        proportional_attention=proportional_attention,
        reference=reference,
    )
