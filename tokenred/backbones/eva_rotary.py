"""Rotary position embeddings that go where their tokens go."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.core.state import TokenState

__all__ = ["Rotary"]


@dataclass(frozen=True, eq=False)
class Rotary:
    """The rotary embeddings of a grid, made once a forward: `TokenState.positions`.

    Attributes:
        table: sines and cosines, ``(N0+1, 2d)``, or ``(L, h, N0+1, 2d)`` where each block and head
            has its own. The last row turns nothing: it is for tokens that stand for no single
            patch.
        index: positions that entered the first block, where these are all in their order; else
            None.
    """

    table: Float[Tensor, "*lh N0_and_1 dd"]
    index: Int[Tensor, "b N0"] | None

    @staticmethod
    def of(rope: Float[Tensor, "*lh N0 dd"], index: Int[Tensor, "b N0"] | None) -> Rotary:
        """From timm's embedding of the whole grid."""
        still = torch.zeros_like(rope[..., :1, :])
        still[..., rope.shape[-1] // 2 :] = 1.0  # sine 0, cosine 1
        return Rotary(torch.cat((rope, still), dim=-2), index)

    def at(self, state: TokenState) -> Float[Tensor, "..."]:
        """The embeddings of the tokens in a state, as timm's blocks take them.

        A token keeps the position of its patch, also when others were merged into it; one of
        position −1 is not turned.

        Shapes:
            ``(N0, 2d)`` or ``(h, N0, 2d)`` while all tokens are in their places, and
            ``(b, 1, n, 2d)`` or ``(b, h, n, 2d)`` from then on.
        """
        rows = self.table if self.table.ndim == 2 else self.table[state.layer]
        if state.index is self.index:
            return rows[..., :-1, :]
        last, width = rows.shape[-2] - 1, rows.shape[-1]
        at = torch.where(state.index < 0, last, state.index)
        taken = F.embedding(at, rows.movedim(-2, 0).flatten(1))
        shape = (*at.shape, taken.shape[-1] // width, width)  # no −1: the batch may be empty
        return taken.view(shape).transpose(1, 2)
