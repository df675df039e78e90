"""Merging."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32, cosines
from tokenred.core.values import Magnitude
from tokenred.graphs.graph import Graph
from tokenred.strategies.base import Fuser, fusers
from tokenred.strategies.transport import Transport

# Nothing beside any weight, but not 0.
_LITTLE = 1e-30


@fusers.register("merge")
class Merge(Fuser):
    """Merge each removed token into one kept token, as a size-weighted mean (ToMe, section 3).

    The kept token is the selection's partner, otherwise the one with the most similar features
    (cosine). ``Σ s`` and ``Σ s·x`` are conserved. If the selection has its own weights
    (`Partnered`), they replace the sizes, and ``Σ s·x`` changes.

    Args:
        epsilon: added to the sum of weights that each mean divides by.
    """

    traits = Traits(conserves_size=True)
    version = 2

    epsilon: Magnitude = 0.0

    uses_size = True
    pads = True

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        # The mean, and the similarities if no partner is given (always counted).
        return float(2 * (tokens - removed) * removed * info.width)

    def weights(self, state: TokenState, selection: Selection) -> Float[Tensor, "b n"] | None:
        """The weight of each image token in a mean; None for its size."""
        return selection.weight

    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        slot = slot_of(state, selection)
        b, k = selection.keep.shape
        joins = slot[:, None, :] == torch.arange(k, device=slot.device)[None, :, None]
        one_hot = joins.to(at_least_fp32(state.x.dtype))
        size = state.image_size
        size = one_hot.new_ones(b, state.num_tokens) if size is None else size.to(one_hot.dtype)
        given = self.weights(state, selection)
        weight = size if given is None else given.to(one_hot.dtype)
        kept, gone = weight.gather(1, selection.keep), weight.gather(1, selection.drop)
        weighted = one_hot * gone[:, None, :]
        sums = kept + weighted.sum(dim=-1)
        # A padding token (size 0) that receives nothing is unchanged: a little, divided by itself.
        total = sums + (self.epsilon or _LITTLE)
        return Transport(
            selection.keep,
            selection.drop,
            move=weighted / total[..., None],
            stay=(kept if self.epsilon else kept + _LITTLE) / total,
            size_move=one_hot,
            size=sums if weight is size else None,
        )


def slot_of(state: TokenState, selection: Selection) -> Int[Tensor, "b P"]:
    """The position in ``keep`` of each removed token's partner; −1 if it joins none."""
    if selection.slot is not None:
        return selection.slot
    if selection.partner is not None:
        b, k = selection.keep.shape
        at = torch.zeros(b, state.num_tokens, dtype=torch.long, device=selection.keep.device)
        at = at.scatter(1, selection.keep, torch.arange(k, device=at.device).expand(b, k))
        own = at.gather(1, selection.partner.clamp_min(0))
        return torch.where(selection.partner < 0, -1, own)
    return cosines(state.image, selection.drop, selection.keep).argmax(dim=-1)
