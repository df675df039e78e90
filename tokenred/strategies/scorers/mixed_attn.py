"""GTP's mixed score."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStats, Need
from tokenred.attention.need import Aggregate
from tokenred.core.state import TokenState
from tokenred.strategies.base import Scorer, scorers

__all__ = ["MixedAttn"]


@scorers.register("MixedAttn")
class MixedAttn(Scorer):
    """Regeneration difficulty × broadcasting ability (GTP-ViT, section 3.2); GTP's default.

    ``γ_i·ψ_i`` with ``γ_i = ⊕ A_ii`` (Eq. 3) and ``ψ_i = ⊕ Σ_{j≠i} A_ji`` (Eq. 4), ⊕ over the
    heads, taken for each factor by itself.

    Args:
        aggregate: ⊕, ``"max"`` or ``"mean"``.
        exclude_self: leave ``A_ii`` out of ψ, as the paper does; the authors' program does not.

    Shapes:
        returns: ``(b, n)``.
    """

    aggregate: Aggregate = "max"
    exclude_self: bool = True

    @property
    def needs(self) -> tuple[Need, ...]:
        return (
            Need.diagonal(self.aggregate),
            Need.received(self.aggregate, exclude_self=self.exclude_self),
        )

    def __call__(self, state: TokenState, attention: AttentionStats) -> Float[Tensor, "b n"]:
        difficulty, broadcasting = self.needs
        return attention[difficulty] * attention[broadcasting]
