"""The selection of frequency-aware reduction."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.strategies.base import Selector, selectors


@selectors.register("MostAttended")
class MostAttended(Selector):
    """Keep the single patches that receive the most attention (Lee et al., NeurIPS 2025).

    The score is the column sum of the attention, averaged over heads. Tokens that represent no
    single patch are never kept.

    Shapes:
        returns: ``keep (b, n−P)`` and ``drop (b, P)``, both ascending.
    """

    traits: ClassVar[Traits] = Traits()

    requires = (AttentionStat.column_sum("mean", exclude_self=False),)

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        score = attention[self.requires[0]]
        order = torch.where(state.index >= 0, score, -torch.inf).sort(
            dim=1, descending=True, stable=True
        )
        kept = state.num_tokens - count
        keep, drop = order.indices[:, :kept], order.indices[:, kept:]
        return Selection(keep=_ascending(keep), drop=_ascending(drop))


def _ascending(places: Tensor) -> Tensor:
    return places.sort(dim=1).values
