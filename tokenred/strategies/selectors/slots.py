"""No choice, only a count."""

import torch

from tokenred.attention import AttentionStats
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.strategies.base import Selector, selectors


@selectors.register("Slots")
class Slots(Selector):
    """Keep the first ``n − P`` positions, for a fuser that replaces all tokens by as many new ones.

    Shapes:
        returns: ``keep (b, n−P)`` and ``drop (b, P)``, ascending.
    """

    traits = Traits(equivariant=False)

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        places = torch.arange(state.num_tokens, device=state.x.device).expand_as(state.index)
        kept = state.num_tokens - count
        return Selection(keep=places[:, :kept], drop=places[:, kept:])
