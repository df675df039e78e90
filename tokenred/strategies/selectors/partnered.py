"""The best by score, and for each of the others the one that is most like it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.capture import replace
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import gather_tokens, product, unit_vectors
from tokenred.core.values import Positive
from tokenred.strategies.base import Scorer, selectors
from tokenred.strategies.scorers.cls_attn import CLSAttn
from tokenred.strategies.selectors.top_score import TopScore


@selectors.register("Partnered")
class Partnered(TopScore):
    """Keep the highest scores; the others belong to the kept token that is most like them.

    Crucial and non-crucial tokens as in MSTM (Bian et al., arXiv 2306.04897), of which we could
    read the abstract only. Ours are: likeness as the cosine of the features, and the weights.

    Args:
        scorer: a scorer or its name; by default MSTM's, as in the recipe.
        weights: how much each token counts where `Merge` takes the mean of those that belong
            together: by ``"importance"``, its score (at least 0); by ``"size"``, the patches it
            stands for; or by ``"similarity"``, ``softmax(cos/τ)`` over those that belong together,
            the kept one with a cosine of 1.
        temperature: τ.

    Shapes:
        returns: ``keep (b, n−P)`` and ``drop (b, P)``, both ascending, and ``partner (b, P)``.
    """

    scorer: Scorer = CLSAttn("mean", "column_sum")
    weights: Literal["importance", "size", "similarity"] = "importance"
    temperature: Positive = 0.1

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        selection = super().__call__(state, attention, count)
        unit = unit_vectors(state.image.detach())
        kept, gone = (gather_tokens(unit, at) for at in (selection.keep, selection.drop))
        likeness, nearest = product(gone, kept.transpose(-2, -1)).max(dim=-1)
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
        # Relative to the kept token: the mean of `Merge` divides by their sum.
        ones = torch.ones(selection.score.shape, dtype=likeness.dtype, device=likeness.device)
        return ones.scatter(1, selection.drop, ((likeness - 1) / self.temperature).exp())
