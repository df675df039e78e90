"""ALGM."""

from __future__ import annotations

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
        threshold: minimum mean similarity for a window to merge; in the paper, for ADE20K: 0.90
            (ViT-Ti), 0.88 (S), 0.94 (B), 0.95 (L).
        layers: windows merge in the first of these blocks, tokens in the others. None for 0 and 4
            of 12.
        window: height and width of the windows, which should divide the grid.
        count: ``"image"`` for each image separately; ``"batch"`` as in the authors' program.
        reference: average pooling counts a merged token once, as in the authors' program.
    """
    return Strategy(
        scorer=LocalGlobal(threshold, layers, window, count), fuser="merge", reference=reference
    )
