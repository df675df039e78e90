"""Relative position biases that go where their tokens go."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.core.state import TokenState

__all__ = ["RelativeBias", "bias_at"]


@dataclass(frozen=True, eq=False)
class RelativeBias:
    """What BEiT's blocks have to know of the grid: `TokenState.positions`.

    Attributes:
        shared: ``(h, N0+1, N0+1)``, a bias that all blocks share, or None.
        index: positions that entered the first block, all in their order.
    """

    shared: Float[Tensor, "h N N"] | None
    index: Int[Tensor, "b N0"]

    def untouched(self, state: TokenState) -> bool:
        """Whether all tokens are in their places."""
        return state.index is self.index


def bias_at(
    bias: Float[Tensor, "h N0_and_1 N0_and_1"], index: Int[Tensor, "b n"]
) -> Float[Tensor, "b h n_and_1 n_and_1"]:
    """The rows and columns of the class token and of the tokens at these positions.

    A token of position −1, which stands for no single patch, has those of the class token.
    """
    h, side, _ = bias.shape
    places = F.pad(index + 1, (1, 0))
    pairs = places[:, :, None] * side + places[:, None, :]
    taken = bias.reshape(h, side * side).index_select(1, pairs.flatten())
    return taken.view(h, *pairs.shape).transpose(0, 1)
