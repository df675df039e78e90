"""ALGM."""

from typing import Literal

from tokenred.core.values import Blocks, Size
from tokenred.strategies.selectors.matching.local_global import LocalGlobal
from tokenred.strategies.selectors.matching.threshold_matching import Cosine
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("algm")
def algm(
    *,
    threshold: Cosine = 0.88,
    layers: Blocks | None = None,
    window: tuple[Size, Size] = (2, 2),
    count: Literal["image", "batch"] = "image",
    reference: bool = False,
) -> Strategy:
    """Merge similar windows early and similar tokens later (ALGM, Norouzi et al., CVPR 2024).

    Made for segmentation; use ``trace.unreduce`` or `tokenred.features` to return to the grid.

    Args:
        threshold, layers, window, count: as for `LocalGlobal`; the paper's thresholds for ADE20K
            are 0.90 (ViT-Ti), 0.88 (S), 0.94 (B) and 0.95 (L).
        reference: average pooling counts a merged token once, as in the authors' code.
    """
    return Strategy(
        scorer=LocalGlobal(threshold, layers, window, count), fuser="merge", reference=reference
    )
