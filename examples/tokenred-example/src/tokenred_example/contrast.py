"""Difference from the average token."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

import tokenred as tr

__all__ = ["Contrast"]


@tr.register_scorer("Contrast")
class Contrast(tr.Scorer):
    """Distance from the mean image token: what looks like everything else goes.

    ``‖x_i − mean_j x_j‖ ^ power``.

    Args:
        power: of the distance.

    Shapes:
        returns: ``(b, n)``.
    """

    power: float = 1.0

    def __call__(self, state: tr.TokenState, attention: tr.AttentionStats) -> Float[Tensor, "b n"]:
        x = state.image
        return (x - x.mean(dim=1, keepdim=True)).norm(dim=-1) ** self.power
