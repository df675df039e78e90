"""Merging without sizes."""

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.strategies.base import fusers
from tokenred.strategies.fusers.merge import Merge


@fusers.register("mean")
class Mean(Merge):
    """Merge each removed token into one kept token, as a plain mean.

    Like `Merge`, but a merged token counts as one in later means; ``Σ s`` is still conserved if
    sizes are tracked. If the selection has weights, they are used instead.
    """

    traits = Traits(conserves_size=True)

    uses_size = False

    def weights(self, state: TokenState, selection: Selection) -> Float[Tensor, "b n"]:
        given = selection.weight
        return torch.ones_like(state.image[..., 0]) if given is None else given
