"""The tokens with the highest scores; the others each join the most similar of these."""

from typing import Literal

import torch
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.capture import replace
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import cosines
from tokenred.core.values import Positive
from tokenred.strategies.base import Scorer, selectors
from tokenred.strategies.scorers.cls_attn import CLSAttn
from tokenred.strategies.selectors.top_score import TopScore


@selectors.register("Partnered")
class Partnered(TopScore):
    """Keep the highest scores; each other token is assigned to the most similar kept token.

    Crucial and non-crucial tokens as in MSTM (Bian et al., arXiv 2306.04897), of which only the
    abstract was available. Our choices: similarity is the cosine of the features, and the weights.

    Args:
        scorer: a scorer or its name; by default MSTM's, as in the recipe.
        weights: weight of each token in the mean that `Merge` takes over a group: ``"importance"``,
            its score (at least 0); ``"size"``, the number of patches it represents; or
            ``"similarity"``, ``softmax(cos/τ)`` over the group, where the kept token has a cosine
            of 1.
        temperature: τ.

    Shapes:
        returns: ``keep (b, n−P)`` ascending, ``drop (b, P)`` by descending score, and
            ``partner (b, P)``.
    """

    scorer: Scorer = CLSAttn("mean", "column_sum")
    weights: Literal["importance", "size", "similarity"] = "importance"
    temperature: Positive = 0.1

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        selection = super().__call__(state, attention, count)
        likeness, nearest = cosines(state.image, selection.drop, selection.keep).max(dim=-1)
        return replace(
            selection,
            partner=selection.keep.gather(1, nearest),
            weight=self._weight(selection, likeness),
        )

    def _weight(self, selection: Selection, likeness: Tensor) -> Tensor | None:
        assert selection.score is not None
        if self.weights == "size":
            return None
        if self.weights == "importance":
            return selection.score.clamp_min(0)
        # Relative to the kept token; `Merge` divides by the sum.
        ones = torch.ones(selection.score.shape, dtype=likeness.dtype, device=likeness.device)
        return ones.scatter(1, selection.drop, ((likeness - 1) / self.temperature).exp())
