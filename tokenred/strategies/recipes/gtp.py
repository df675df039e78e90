"""GTP-ViT."""

from typing import Any

from tokenred.core.values import Aggregate, Count, Magnitude, Magnitudes, Share, Size
from tokenred.graphs.base import GraphBuilder, graph_builders
from tokenred.strategies.base import Fuser, Scorer, Selector, fusers, names_selector, scorers
from tokenred.strategies.schedules.constant import Constant
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("gtp")
def gtp(
    *,
    P: Count | None = None,
    M: Size | None = None,
    alpha: Magnitude | Magnitudes | None = None,
    theta: Share = 1.0,
    scorer: str | Scorer | Selector = "MixedAttn",
    aggregate: Aggregate | None = None,
    graph: str | GraphBuilder = "mixed",
    fuser: str | Fuser = "propagate",
    proportional_attention: bool = True,
    reference: bool = False,
) -> Strategy:
    """Graph-based token propagation (GTP-ViT, Xu et al., WACV 2024, arXiv 2311.03035).

    Removes tokens that are easy to regenerate and broadcast little; their features propagate to
    kept neighbours in a graph of spatial and semantic similarity. No training.

    Args:
        P: tokens removed per block; by default 8, or half of all tokens if a model has too few for
            that.
        M: number of semantic neighbours per token; by default the graph's own, 8.
        alpha: magnitude α of the propagation; one number, or one per block; by default the fuser's
            own, 0.1.
        theta: share θ of attention entries kept.
        scorer, graph, fuser: parts or their names; arguments that they do not use are ignored.
        aggregate: max or mean over heads; by default the scorer's own, max.
        proportional_attention: add ``log s`` in the attention.
        reference: follow the authors' code where it differs from the paper: a token's attention to
            itself counts as broadcast, θ keeps one entry more, and a model without CLS gets M + 1
            semantic neighbours.
    """
    if isinstance(scorer, str) and not names_selector(scorer):
        options = {"exclude_self": False} if reference else {}
        scorer = scorers.create(scorer, **_given(aggregate=aggregate), **options)
    return Strategy(
        scorer=scorer,
        graph=graph_builders.create(graph, reference=reference, **_given(M=M)),
        fuser=fusers.create(fuser, **_given(alpha=alpha)),
        schedule=Constant(8, fit=True) if P is None else Constant(P),
        theta=theta,
        proportional_attention=proportional_attention,
        reference=reference,
    )


def _given(**arguments: Any) -> dict[str, Any]:
    """Without what is left to the part: one of the user's own may have other defaults."""
    return {name: value for name, value in arguments.items() if value is not None}
