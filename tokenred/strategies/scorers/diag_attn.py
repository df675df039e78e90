"""GTP's regeneration difficulty."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.attention.stats import Aggregate
from tokenred.core.state import TokenState
from tokenred.strategies.base import Scorer, scorers


@scorers.register("DiagAttn")
class DiagAttn(Scorer):
    """Regeneration difficulty ``γ_i = ⊕ A_ii``: attention to itself (GTP-ViT, Eq. 3).

    Args:
        aggregate: ⊕ over heads, ``"max"`` or ``"mean"``.

    Shapes:
        returns: ``(b, n)``.
    """

    aggregate: Aggregate = "max"

    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        return (AttentionStat.diagonal(self.aggregate),)

    def __call__(self, state: TokenState, attention: AttentionStats) -> Float[Tensor, "b n"]:
        return attention[self.requires[0]]
