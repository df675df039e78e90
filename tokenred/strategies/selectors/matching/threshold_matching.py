"""DToMe's matching."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le, MinLen
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.strategies.base import Selector, selectors
from tokenred.strategies.selectors.matching.batch_matching import BatchMatching
from tokenred.strategies.selectors.padded import ByImage, key_pairs, merged_pairs, ranked

Cosine = Annotated[float, Ge(-1), Le(1)]
Cosines = Annotated[tuple[Cosine, ...], MinLen(1)]


@selectors.register("ThresholdMatching")
class ThresholdMatching(ByImage):
    """ToMe's matching, merging every pair closer than a threshold (DToMe; DyMU, Wang et al., 2025).

    In each image, every token of A merges whose most similar token of B has a cosine above τ, but
    at most half of the image tokens, the best first.

    Args:
        thresholds: τ; one number, or one for each block.
        order: order of the rest of A, as for `BipartiteMatching`.

    Shapes:
        returns: ``keep`` = the rest of A, then B, then padding; ``drop`` and ``partner``.
    """

    traits = Traits(equivariant=False)

    thresholds: Cosine | Cosines = 0.85
    order: Literal["place", "released"] = "place"

    requires = (AttentionStat.keys(),)
    per_block = ("thresholds",)
    calibration_passes = 1

    def probing(self, removed: float | None) -> BatchMatching:
        return BatchMatching(8.0 if removed is None else removed, self.order)

    def calibrated(self, found: Sequence[Sequence[Tensor]]) -> Selector:
        means = (float(torch.stack(list(batches)).mean()) for batches in found)
        return self.replace(thresholds=tuple(means))

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float((tokens // 2) * (tokens - tokens // 2) * info.head_dim)

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        alive, closeness, partner = key_pairs(state, attention)
        tau = self.thresholds
        tau = tau[state.layer] if isinstance(tau, tuple) else tau
        most = alive.sum(dim=1, keepdim=True) // 2
        moves = (closeness > tau) & (ranked(closeness) < most)
        return merged_pairs(state, alive, closeness, partner, moves, self.order)
