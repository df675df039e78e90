"""ATS."""

from tokenred.core.values import Blocks, Size, Sizes
from tokenred.strategies.selectors.inverse_transform import InverseTransform
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("ats")
def ats(*, max_tokens: Size | Sizes | None = None, layers: Blocks | None = None) -> Strategy:
    """Sample as many tokens as each image needs (ATS, Fayyaz et al., ECCV 2022). No training.

    `tokenred.gmacs` is then an upper bound, with nothing removed; measure the actual cost with
    `tokenred.analysis.adaptive_cost`.

    The arguments are those of `InverseTransform`.
    """
    # No schedule: the images determine the counts.
    return Strategy(scorer=InverseTransform(max_tokens, layers))
