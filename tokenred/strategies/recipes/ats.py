"""ATS."""

from __future__ import annotations

from tokenred.core.values import Blocks, Size, Sizes
from tokenred.strategies.selectors.inverse_transform import InverseTransform
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("ats")
def ats(
    *,
    max_tokens: Size | Sizes | None = None,
    layers: Blocks | None = None,
) -> Strategy:
    """Sample as many tokens as the image needs (ATS, Fayyaz et al., ECCV 2022). No training.

    `tokenred.gmacs` is an upper bound then, as if nothing went; what images cost is measured
    (`tokenred.analysis.adaptive_cost`).

    Args:
        max_tokens: the most that stay in a block; one number, or one for each of `layers`; None
            for as many as there were at the start.
        layers: blocks in which tokens go; None for all from the first quarter of the depth on
            (3-11 of 12).
    """
    # No schedule: the images say how many go.
    return Strategy(scorer=InverseTransform(max_tokens, layers))
