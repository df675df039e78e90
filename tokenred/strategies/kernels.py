"""Graphs and reductions by Triton kernels, for parts that there is one for.

For engines that were asked for by name: whether these kernels are faster has not been measured.
Importing this imports no Triton.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.capture import replace
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32, unit_vectors
from tokenred.graphs.base import GraphBuilder
from tokenred.graphs.graph import Graph
from tokenred.graphs.mixed import Mixed
from tokenred.graphs.semantic import Semantic
from tokenred.strategies.base import Fuser, Selector
from tokenred.strategies.fusers.fused_token import FusedToken
from tokenred.strategies.fusers.mean import Mean
from tokenred.strategies.fusers.merge import Merge, slot_of
from tokenred.strategies.fusers.propagate import Propagate
from tokenred.strategies.fusers.prune import Prune
from tokenred.strategies.selectors.matching.bipartite_matching import BipartiteMatching
from tokenred.strategies.selectors.top_score import TopScore, keep_best

__all__ = ["built", "fused", "selected"]


def built(
    builder: GraphBuilder, x0: Float[Tensor, "b N0 c"], grid: tuple[int, int]
) -> Graph | None:
    """The builder's graph; the most similar tokens by a kernel if there is one."""
    from tokenred.attention.triton.nearest import MOST_NEAR, nearest

    if not isinstance(builder, Semantic):
        return builder(x0, grid)
    if type(builder) not in (Semantic, Mixed) or builder.M > MOST_NEAR:
        return builder(x0, grid)
    builder.check_tokens(x0.shape[1])
    near = nearest(unit_vectors(x0), builder.M)
    return builder.joined(near, grid, at_least_fp32(x0.dtype))


def selected(
    selector: Selector, state: TokenState, attention: AttentionStats, count: int
) -> Selection:
    """What the selector chooses, by a kernel if there is one."""
    from tokenred.attention.triton.reduction import select

    if type(selector) is TopScore:
        score = selector.scores(state, attention)
        if score.dtype not in (torch.float16, torch.bfloat16, torch.float32):
            return keep_best(score, count)
        keep, drop, _, _ = select(score, None, count, 0, 0)
        return Selection(keep, drop, score=score)
    if type(selector) is BipartiteMatching and selector.by_place(state):
        closeness, partner = selector.pairs(state, attention)
        targets, even = state.num_tokens - closeness.shape[1], state.num_prefix % 2
        keep, drop, into, slot = select(closeness, partner, count, targets, even)
        weight = selector.importance(state, attention)
        return Selection(keep, drop, into, weight=weight, slot=slot)
    return selector(state, attention, count)


def fused(
    fuser: Fuser, state: TokenState, selection: Selection, attention: AttentionStats
) -> TokenState:
    """The state after the reduction, by a kernel if there is one."""
    from tokenred.attention.triton.reduction import fuse

    size, keep, drop = state.size, selection.keep, selection.drop
    slot = weight = move = size_move = stay = None
    epsilon, extra = 0.0, 0
    if isinstance(fuser, Merge) and type(fuser) in (Merge, Mean):
        slot, weight, epsilon = slot_of(state, selection), selection.weight, fuser.epsilon
        if weight is None:
            weight = state.image_size if type(fuser) is Merge else None
        if weight is None:
            weight = torch.ones_like(state.index, dtype=at_least_fp32(state.x.dtype))
    elif type(fuser) in (FusedToken, Propagate, Prune):
        transport = fuser.transport(state, selection, state.graph, attention)
        move, size_move, stay = transport.move, transport.size_move, transport.stay
        extra = transport.extra
    else:
        return fuser(state, selection, state.graph, attention)
    x, index, sums = fuse(
        state.x, state.index, size, keep, drop, state.num_prefix, extra,
        move, size_move, stay, slot, weight, epsilon,
    )  # fmt: skip
    return replace(state, x=x, index=index, size=None if size is None else sums)
