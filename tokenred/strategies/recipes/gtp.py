"""GTP-ViT."""

from __future__ import annotations

from tokenred.attention.stats import Aggregate
from tokenred.core.values import Count, Magnitude, Magnitudes, Share, Size
from tokenred.graphs.base import GraphBuilder, graph_builders
from tokenred.strategies.base import Fuser, Scorer, Selector, fusers, names_selector, scorers
from tokenred.strategies.schedules.constant import Constant
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("gtp")
def gtp(
    *,
    P: Count | None = None,
    M: Size = 8,
    alpha: Magnitude | Magnitudes = 0.1,
    theta: Share = 1.0,
    scorer: str | Scorer | Selector = "MixedAttn",
    aggregate: Aggregate = "max",
    graph: str | GraphBuilder = "mixed",
    fuser: str | Fuser = "propagate",
    proportional_attention: bool = True,
    reference: bool = False,
) -> Strategy:
    """Graph-based token propagation (GTP-ViT, Xu et al., WACV 2024, arXiv 2311.03035).

    Tokens that are easy to rebuild and broadcast little go; their features propagate to their kept
    neighbours in a graph of space and meaning. No training.

    Args:
        P: tokens removed in every block; by default 8, or half of all tokens where a model has
            too few for that.
        M: semantic neighbours of a token.
        alpha: magnitude α of the propagation; one number, or one for each block.
        theta: share θ of attention entries kept.
        scorer, graph, fuser: parts or their names; arguments that one does not use are left aside.
        aggregate: max or mean over heads.
        proportional_attention: ``log s`` in the attention.
        reference: as the authors' program, where it departs from the paper: a token counts its
            own attention as broadcast, θ keeps one entry more, and a model without CLS gets
            M + 1 semantic neighbours.
    """
    if isinstance(scorer, str) and not names_selector(scorer):
        options = {"exclude_self": False} if reference else {}
        scorer = scorers.create(scorer, aggregate=aggregate, **options)
    return Strategy(
        scorer=scorer,
        graph=graph_builders.create(graph, M=M, reference=reference),
        fuser=fusers.create(fuser, alpha=alpha),
        schedule=Constant(8, fit=True) if P is None else Constant(P),
        theta=theta,
        proportional_attention=proportional_attention,
        reference=reference,
    )
