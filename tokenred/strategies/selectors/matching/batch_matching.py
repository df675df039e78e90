"""The matching that calibrates DToMe."""

from typing import Literal

import torch
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.values import Magnitude
from tokenred.strategies.base import selectors
from tokenred.strategies.selectors.padded import ByImage, key_pairs, living, merged_pairs, ranked


@selectors.register("BatchMatching")
class BatchMatching(ByImage):
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
    traits = Traits(equivariant=False, independent=False)

    r: Magnitude = 8.0
    order: Literal["place", "released"] = "place"

    requires = (AttentionStat.keys(),)

    def pairs(
        self, state: TokenState, attention: AttentionStats
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """Closeness and partner of each token, its rank in the batch, and how many merge."""
        alive, closeness, partner = key_pairs(state, attention)
        rank = ranked(closeness.flatten()[None]).view_as(closeness)
        return closeness, partner, rank, int(min(self.r, alive.shape[1] // 2) * len(closeness))

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        closeness, partner, rank, number = self.pairs(state, attention)
        moves = (rank < number) & closeness.isfinite()
        return merged_pairs(state, living(state), closeness, partner, moves, self.order)

    def measure(self, state: TokenState, attention: AttentionStats) -> Tensor:
        closeness, _, rank, number = self.pairs(state, attention)
        left = closeness.masked_fill(rank < number, -torch.inf)
        return left.amax().clamp_min(0)
