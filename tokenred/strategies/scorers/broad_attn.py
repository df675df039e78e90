"""GTP's broadcasting ability."""

from tokenred.attention import AttentionStat
from tokenred.core.values import Aggregate
from tokenred.strategies.base import Scorer, scorers


@scorers.register("BroadAttn")
class BroadAttn(Scorer):
    """Broadcasting ability ``ψ_i = ⊕ Σ_{j≠i} A_ji``: attention received (GTP-ViT, Eq. 4).

    Args:
        aggregate: ⊕ over heads, ``"max"`` or ``"mean"``.
        exclude_self: exclude ``A_ii``, as in the paper; the authors' code includes it.
    """

    aggregate: Aggregate = "max"
    exclude_self: bool = True

    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        return (AttentionStat.column_sum(self.aggregate, exclude_self=self.exclude_self),)
