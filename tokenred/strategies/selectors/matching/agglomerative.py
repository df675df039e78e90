"""ATC's clusters."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats, mean_keys
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import finest, product, unit_vectors
from tokenred.strategies.base import Selector, selectors


@selectors.register("Agglomerative")
class Agglomerative(Selector):
    """Join the two nearest clusters of tokens, P times (ATC, Haurum et al., ECCV 2024).

    The distance of two tokens is ``1 − cos`` of their head-averaged keys. Clusters are joined on
    the device, all images of a batch at once: P steps of ``O(n²)`` each.

    Args:
        linkage: the distance of two clusters: the minimum (``"single"``), the maximum
            (``"complete"``) or the mean (``"average"``) over all pairs of their tokens.

    Shapes:
        returns: ``keep (b, n−P)``, the first token of each cluster, ascending; ``drop (b, P)``, the
            others; ``partner (b, P)``, the first token of their cluster.
    """

    traits = Traits(equivariant=False)

    linkage: Literal["single", "complete", "average"] = "average"

    requires = (AttentionStat.keys(),)

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float(tokens**2 * (info.head_dim + removed))

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        metric = unit_vectors(mean_keys(attention)[:, state.num_prefix :].detach())
        fine = finest(metric)  # each join affects later ones
        distance = 1 - product(fine, fine.transpose(-2, -1))
        first = clustered(distance.to(metric.dtype), count, self.linkage)
        return of_clusters(first, count)


def clustered(distance: Float[Tensor, "b n n"], joins: int, linkage: str) -> Int[Tensor, "b n"]:
    """The lowest position in the cluster of each token, after a number of joins.

    With equal distances, the pair with the lowest position comes first.
    """
    b, n = distance.shape[:2]
    image = torch.arange(b, device=distance.device)[:, None]
    places = torch.arange(n, device=distance.device)
    far = torch.inf  # of a cluster to itself, and of one that was joined to another to all
    distance = torch.minimum(distance, distance.transpose(1, 2))  # a product may round them apart
    distance = distance.masked_fill(places[:, None] == places, far)
    first = places.repeat(b, 1)
    tokens = distance.new_ones(b, n)
    gone = distance.new_full((b, n), far)
    for _ in range(joins):
        # Symmetric, so the first row with the smallest entry is the lower one of the pair.
        low = distance.amin(dim=1).argmin(dim=1, keepdim=True)
        high = distance[image, low].argmin(dim=2)
        both = torch.cat((low, high), dim=1)
        row, other = distance[image, both].unbind(dim=1)
        if linkage == "average":
            share = tokens.gather(1, both)
            total = share.sum(dim=1, keepdim=True)
            share = share / total
            joined = row * share[:, :1] + other * share[:, 1:]
            tokens.scatter_(1, low, total)
        else:
            joined = torch.minimum(row, other) if linkage == "single" else torch.maximum(row, other)
        new = torch.stack((joined.scatter_(1, both, far), gone), dim=1)
        distance[image, both] = new
        distance.transpose(1, 2)[image, both] = new
        first = torch.where(first == high, low, first)
    return first


def of_clusters(first: Int[Tensor, "b n"], count: int) -> Selection:
    """Keep the first token of each cluster and remove the other ``count`` tokens."""
    n = first.shape[1]
    joins = (first != torch.arange(n, device=first.device)).long()
    order = joins.sort(dim=1, stable=True).indices
    keep, drop = order[:, : n - count], order[:, n - count :]
    return Selection(keep=keep, drop=drop, partner=first.gather(1, drop))
