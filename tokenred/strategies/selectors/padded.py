"""Selections with as many tokens as each image needs."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenred.attention import AttentionStats, mean_keys
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import product, unit_vectors
from tokenred.strategies.base import Selector


class ByImage(Selector):
    """Each image decides how many of its tokens go, by default in every block; no schedule does."""

    def adaptive(self, layer: int, depth: int) -> bool:
        return True

    def limit(self, tokens: int) -> int:
        return 0


def living(state: TokenState) -> Bool[Tensor, "b n"]:
    """The image tokens that are not padding."""
    size = state.image_size
    return torch.ones_like(state.index, dtype=torch.bool) if size is None else size > 0


def padded_selection(
    rank: Int[Tensor, "b n"],
    kept: Bool[Tensor, "b n"],
    alive: Bool[Tensor, "b n"],
    partner: Int[Tensor, "b n"] | None = None,
) -> Selection:
    """The selection of the kept tokens, padded to the image that keeps the most.

    Args:
        rank: the order of the kept tokens.
        kept: which tokens stay.
        alive: which tokens are not padding.
        partner: for each removed token, the position of the one that it joins, or −1.
    """
    n = kept.shape[1]
    count = kept.sum(dim=1)
    # The only synchronisation with the device. An empty batch keeps everything.
    fewest, most = torch.stack(torch.aminmax(count)).tolist() if count.shape[0] else (n, n)
    last = rank.amax(dim=1, keepdim=True) + 1 if rank.numel() else rank
    order = torch.where(kept, rank, last).sort(dim=1, stable=True).indices
    drop = kept.long().sort(dim=1, stable=True).indices[:, : n - fewest]
    gone = (alive & ~kept).gather(1, drop)
    if partner is not None:
        partner = torch.where(gone, partner.gather(1, drop), -1)
    return Selection(
        keep=order[:, :most],
        drop=drop,
        partner=partner,
        alive=torch.arange(most, device=kept.device) < count[:, None],
        gone=gone,
    )


def best_pairs(
    unit: Float[Tensor, "b n c"], alive: Tensor, num_prefix: int
) -> tuple[Float[Tensor, "b n"], Tensor]:
    """The similarity of each token of A to its most similar token of B, and that token's position.

    Tokens of B and padding have a similarity of −∞.
    """
    n = unit.shape[1]
    places = torch.arange(n, device=unit.device)
    in_a = (places + num_prefix) % 2 == 0
    possible = (alive & in_a)[:, :, None] & (alive & ~in_a)[:, None, :]
    similarity = product(unit, unit.transpose(-2, -1)).masked_fill(~possible, -torch.inf)
    return similarity.max(dim=-1)


def key_pairs(
    state: TokenState, attention: AttentionStats
) -> tuple[Bool[Tensor, "b n"], Float[Tensor, "b n"], Tensor]:
    """Which tokens are no padding, and their `best_pairs` by keys averaged over heads."""
    alive, p = living(state), state.num_prefix
    return alive, *best_pairs(unit_vectors(mean_keys(attention)[:, p:]), alive, p)


def ranked(score: Float[Tensor, "b n"]) -> Tensor:
    """The rank of each score in its row, the highest first; ties by position."""
    return (-score).sort(dim=1, stable=True).indices.argsort(dim=1)


def merged_pairs(
    state: TokenState,
    alive: Tensor,
    closeness: Float[Tensor, "b n"],
    partner: Tensor,
    moves: Tensor,
    order: str = "place",
) -> Selection:
    """A selection in which some tokens of A merge: it keeps the rest of A, then B.

    Without a prefix and with the order ``"released"``, the rest of A is sorted by closeness.
    """
    by_similarity = order == "released" and state.num_prefix == 0
    n = alive.shape[1]
    places = torch.arange(n, device=alive.device).expand_as(partner)
    in_a = (places + state.num_prefix) % 2 == 0
    rank = torch.where(in_a, ranked(closeness) if by_similarity else places, n + places)
    return padded_selection(rank, alive & ~moves, alive, partner)
