"""Merging by the largest entry."""

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.capture import replace
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import gather_tokens
from tokenred.graphs.graph import Graph
from tokenred.strategies.base import fusers
from tokenred.strategies.fusers.mean import Mean
from tokenred.strategies.fusers.merge import slot_of


@fusers.register("maximum")
class Maximum(Mean):
    """Merge each removed token into one kept token, keeping the largest entry of each channel.

    A trace records equal weights.

    Args:
        magnitude: the entry of largest magnitude (CubistMerge, Gong and Lis, arXiv 2509.21764),
            that of the kept token in a tie; False takes the greatest one.
    """

    traits = Traits(conserves_size=True)
    linear = False

    magnitude: bool = True

    def __call__(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> TokenState:
        after = self.transport(state, selection, graph, attention).apply(state)
        kept, gone = (gather_tokens(state.image, at) for at in (selection.keep, selection.drop))
        image = merged_maximum(kept, gone, slot_of(state, selection), self.magnitude)
        return replace(after, x=torch.cat((state.prefix, image), dim=1))


def merged_maximum(
    kept: Float[Tensor, "b k c"], gone: Float[Tensor, "b P c"], slot: Tensor, magnitude: bool
) -> Float[Tensor, "b k c"]:
    """The largest entries of each kept token and those joining it (a slot of −1 joins none)."""
    joins = (slot >= 0)[..., None]
    at = slot.clamp_min(0)[..., None].expand_as(gone)
    highest = kept.scatter_reduce(1, at, torch.where(joins, gone, -torch.inf), "amax")
    if not magnitude:
        return highest
    lowest = kept.scatter_reduce(1, at, torch.where(joins, gone, torch.inf), "amin")
    largest = torch.where(highest >= -lowest, highest, lowest)
    return torch.where(kept.abs() >= largest.abs(), kept, largest)
