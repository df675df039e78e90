"""The matching that calibrates DToMe."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats, mean_keys
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import unit_vectors
from tokenred.core.values import Magnitude
from tokenred.strategies.base import Selector, selectors
from tokenred.strategies.selectors.padded import best_pairs, living, merged_pairs, ranked


@selectors.register("BatchMatching")
class BatchMatching(Selector):
    """ToMe's matching over a whole batch: the ``r·b`` best pairs of all images merge.

    It measures the thresholds of `ThresholdMatching`: τ of a batch is the cosine of the best pair
    that does not merge, at least 0 (Wang et al., 2025, with our names).

    Args:
        r: pairs that merge, on average over the images, at most half of the tokens.
        order: order of the rest of A, as for `BipartiteMatching`.

    Shapes:
        returns: as for `ThresholdMatching`.
    """

    # Only here does an image's result depend on the others.
    traits: ClassVar[Traits] = Traits(equivariant=False, independent=False)

    r: Magnitude = 8.0
    order: Literal["place", "released"] = "place"

    requires = (AttentionStat.keys(),)

    def adaptive(self, layer: int, depth: int) -> bool:
        return True

    def limit(self, tokens: int) -> int:
        return 0

    def pairs(
        self, state: TokenState, attention: AttentionStats
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """Closeness and partner of each token, its rank in the batch, and how many merge."""
        alive = living(state)
        closeness, partner = best_pairs(
            unit_vectors(mean_keys(attention)[:, state.num_prefix :]), alive, state.num_prefix
        )
        rank = ranked(closeness.flatten()[None]).view_as(closeness)
        return closeness, partner, rank, int(min(self.r, alive.shape[1] // 2) * len(closeness))

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        closeness, partner, rank, number = self.pairs(state, attention)
        moves = (rank < number) & closeness.isfinite()
        by_similarity = self.order == "released" and state.num_prefix == 0
        return merged_pairs(state, living(state), closeness, partner, moves, by_similarity)

    def measure(self, state: TokenState, attention: AttentionStats) -> Tensor:
        closeness, _, rank, number = self.pairs(state, attention)
        left = closeness.masked_fill(rank < number, -torch.inf)
        return left.amax().clamp_min(0)
