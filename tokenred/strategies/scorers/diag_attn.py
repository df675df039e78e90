"""GTP's regeneration difficulty."""

from tokenred.attention import AttentionStat
from tokenred.core.values import Aggregate
from tokenred.strategies.base import Scorer, scorers


@scorers.register("DiagAttn")
class DiagAttn(Scorer):
    """Regeneration difficulty ``γ_i = ⊕ A_ii``: attention to itself (GTP-ViT, Eq. 3).

    Args:
        aggregate: ⊕ over heads, ``"max"`` or ``"mean"``.
    """

    aggregate: Aggregate = "max"

    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        return (AttentionStat.diagonal(self.aggregate),)
