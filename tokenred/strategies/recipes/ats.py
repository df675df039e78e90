"""ATS."""

from __future__ import annotations

from tokenred.core.values import Blocks, Size, Sizes
from tokenred.strategies.selectors.inverse_transform import InverseTransform
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("ats")
def ats(*, max_tokens: Size | Sizes | None = None, layers: Blocks | None = None) -> Strategy:
    """Sample as many tokens as each image needs (ATS, Fayyaz et al., ECCV 2022). No training.

    `tokenred.gmacs` is then an upper bound, with nothing removed; measure the actual cost with
    `tokenred.analysis.adaptive_cost`.

    Args:
        max_tokens: maximum number of tokens kept in a block; one number, or one for each of
            `layers`; None for the number at the start.
        layers: blocks that remove tokens; None for all from the first quarter of the depth on (3-11
            of 12).
    """
    # No schedule: the images determine the counts.
    return Strategy(scorer=InverseTransform(max_tokens, layers))
