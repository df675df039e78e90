"""Leaving something for everybody."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

import tokenred as tr

__all__ = ["Spread"]


@tr.register_fuser("spread")
class Spread(tr.Fuser):
    """What goes is left to its kept neighbours in equal shares; without any, it is gone.

    ``x'_i = x_i + alpha · Σ_j x_j / |kept neighbours of j|``, over the neighbours j that go.

    Args:
        alpha: how much of it arrives.

    Shapes:
        returns: ``n − P`` image tokens.
    """

    alpha: float = 0.1

    @property
    def uses_graph(self) -> bool:
        return True

    def transport(
        self,
        state: tr.TokenState,
        selection: tr.Selection,
        graph: tr.Graph | None,
        attention: tr.AttentionStats,
    ) -> tr.Transport:
        move: Float[Tensor, "b k P"] | None = None
        if graph is not None:
            kept = state.index.gather(1, selection.keep)
            gone = state.index.gather(1, selection.drop)
            near = (graph.weights_between(kept, gone) > 0).to(torch.float32)
            move = self.alpha * near / near.sum(dim=1, keepdim=True).clamp_min(1)
        return tr.Transport(selection.keep, selection.drop, move=move)
