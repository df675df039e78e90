"""The selection of frequency-aware reduction."""

import torch

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.state import Selection, TokenState
from tokenred.strategies.base import Selector, selectors
from tokenred.strategies.selectors.top_score import keep_best


@selectors.register("MostAttended")
class MostAttended(Selector):
    """Keep the single patches that receive the most attention (Lee et al., NeurIPS 2025).

    The score is the column sum of the attention, averaged over heads. Tokens that represent no
    single patch are never kept.

    Shapes:
        returns: ``keep (b, n−P)`` ascending, ``drop (b, P)`` by descending score.
    """

    requires = (AttentionStat.column_sum("mean", exclude_self=False),)

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        score = attention[self.requires[0]]
        below = score - score.amax(dim=1, keepdim=True) - 1
        best = keep_best(torch.where(state.index >= 0, score, below), count)
        return Selection(best.keep, best.drop)
