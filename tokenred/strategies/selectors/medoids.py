"""K-Medoids."""

from typing import Annotated

import torch
from annotated_types import Ge, Le
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32
from tokenred.core.values import Count
from tokenred.strategies.base import Selector, selectors
from tokenred.strategies.selectors.density_peaks import distances

Iterations = Annotated[int, Ge(0), Le(1000)]


@selectors.register("Medoids")
class Medoids(Selector):
    """Keep the medoids of clusters (K-Medoids; Haurum et al., ICCVW 2023).

    The first medoids are the tokens that receive the most attention. Then tokens join the nearest
    medoid, and the new medoid of a cluster is the member with the least ``w_i · Σ_j ‖x_i − x_j‖``,
    j over all tokens and w the attention received.

    Args:
        equal_weights: use w = 1; the first medoids are then one token and, one by one, the token
            farthest from all of them.
        iterations: how often tokens are assigned and medoids chosen again.
        start: position of the first medoid with equal weights; None for one that depends on the
            block.

    Shapes:
        returns: ``keep (b, n−P)``, in the order of the first medoids; ``drop (b, P)`` ascending.
    """

    traits = Traits(equivariant=False)

    equal_weights: bool = False
    iterations: Iterations = 3
    start: Count | None = None

    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        return () if self.equal_weights else (_RECEIVED,)

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float(tokens**2 * info.width)

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        distance = distances(state.image.detach())
        kept = distance.shape[1] - count
        if self.equal_weights:
            start = 7919 * (state.layer + 1) if self.start is None else self.start
            medoids = _farthest(distance, kept, start % distance.shape[1])
            cost = distance.sum(dim=2)
        else:
            weight = attention[_RECEIVED].to(at_least_fp32(distance.dtype))
            medoids = (-weight).sort(dim=1, stable=True).indices[:, :kept]
            cost = weight * distance.sum(dim=2)
        for _ in range(self.iterations):
            medoids = _moved(distance, cost, medoids)
        chosen = torch.zeros_like(state.index).scatter(1, medoids, 1)
        return Selection(keep=medoids, drop=chosen.sort(dim=1, stable=True).indices[:, :count])


_RECEIVED = AttentionStat.column_sum("mean", exclude_self=False)


def _moved(
    distance: Float[Tensor, "b n n"], cost: Float[Tensor, "b n"], medoids: Int[Tensor, "b K"]
) -> Int[Tensor, "b K"]:
    """The cheapest member of each medoid's cluster."""
    n = distance.shape[1]
    to_medoids = distance.gather(2, medoids[:, None, :].expand(-1, n, -1))
    # A medoid stays in its own cluster, even if another is as near.
    own = to_medoids.argmin(dim=2)
    clusters = torch.arange(medoids.shape[1], device=own.device).expand_as(medoids)
    own = own.scatter(1, medoids, clusters)
    least = torch.full_like(medoids, torch.inf, dtype=cost.dtype)
    least = least.scatter_reduce(1, own, cost, "amin")
    places = torch.arange(n, device=cost.device).expand_as(own)
    cheapest = torch.where(cost == least.gather(1, own), places, n)
    return torch.full_like(medoids, n).scatter_reduce(1, own, cheapest, "amin")


def _farthest(distance: Float[Tensor, "b n n"], kept: int, start: int) -> Int[Tensor, "b K"]:
    """Starting from one position, repeatedly the token farthest from all chosen ones."""
    b, n = distance.shape[:2]
    image, places = torch.arange(b, device=distance.device), torch.arange(n, device=distance.device)
    chosen = [places.new_full((b,), start)]
    taken = (places == start).expand(b, n)
    most = distance[:, start]
    for _ in range(kept - 1):
        chosen.append(most.masked_fill(taken, -1).argmax(dim=1))
        taken = taken | (places == chosen[-1][:, None])
        most = torch.maximum(most, distance[image, chosen[-1]])
    return torch.stack(chosen, dim=1)
