"""DToMe's matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le, MinLen
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats, mean_keys
from tokenred.core.errors import ConfigError
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import unit_vectors
from tokenred.strategies.base import Selector, selectors
from tokenred.strategies.selectors.matching.batch_matching import BatchMatching
from tokenred.strategies.selectors.padded import best_pairs, living, merged_pairs, ranked

Cosine = Annotated[float, Ge(-1), Le(1)]
Cosines = Annotated[tuple[Cosine, ...], MinLen(1)]


@selectors.register("ThresholdMatching")
class ThresholdMatching(Selector):
    """ToMe's matching, merging every pair closer than a threshold (DToMe; DyMU, Wang et al., 2025).

    In each image, every token of A merges whose most similar token of B has a cosine above τ, but
    at most half of the image tokens, the best first.

    Args:
        thresholds: τ; one number, or one for each block.
        order: order of the rest of A, as for `BipartiteMatching`.

    Shapes:
        returns: ``keep`` = the rest of A, then B, then padding; ``drop`` and ``partner``.
    """

    traits: ClassVar[Traits] = Traits(equivariant=False)

    thresholds: Cosine | Cosines = 0.85
    order: Literal["place", "released"] = "place"

    requires = (AttentionStat.keys(),)
    calibration_passes: ClassVar[int] = 1

    def probing(self, removed: float | None) -> BatchMatching:
        return BatchMatching(8.0 if removed is None else removed, self.order)

    def calibrated(self, found: Sequence[Sequence[Tensor]]) -> ThresholdMatching:
        means = (float(torch.stack(list(batches)).mean()) for batches in found)
        return self.replace(thresholds=tuple(means))

    def adaptive(self, layer: int, depth: int) -> bool:
        return True

    def limit(self, tokens: int) -> int:
        # The images determine the counts, not a schedule.
        return 0

    def check(self, info: ModelInfo) -> None:
        super().check(info)
        if isinstance(self.thresholds, tuple) and len(self.thresholds) != info.depth:
            raise ConfigError(
                f"ThresholdMatching: {len(self.thresholds)} thresholds for {info.depth} blocks; "
                "pass one number, or one for each."
            )

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float((tokens // 2) * (tokens - tokens // 2) * info.head_dim)

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        alive = living(state)
        closeness, partner = best_pairs(
            unit_vectors(mean_keys(attention)[:, state.num_prefix :]), alive, state.num_prefix
        )
        tau = self.thresholds
        tau = tau[state.layer] if isinstance(tau, tuple) else tau
        most = alive.sum(dim=1, keepdim=True) // 2
        moves = (closeness > tau) & (ranked(closeness) < most)
        by_similarity = self.order == "released" and state.num_prefix == 0
        return merged_pairs(state, alive, closeness, partner, moves, by_similarity)
