"""GTP's mixed score."""

from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.state import TokenState
from tokenred.core.values import Aggregate
from tokenred.strategies.base import Scorer, scorers


@scorers.register("MixedAttn")
class MixedAttn(Scorer):
    """Regeneration difficulty × broadcasting ability (GTP-ViT, section 3.2); GTP's default.

    ``γ_i·ψ_i`` with ``γ_i = ⊕ A_ii`` (Eq. 3) and ``ψ_i = ⊕ Σ_{j≠i} A_ji`` (Eq. 4), ⊕ over the
    heads, separately for each factor.

    Args:
        aggregate: ⊕, ``"max"`` or ``"mean"``.
        exclude_self: exclude ``A_ii`` from ψ, as in the paper; the authors' code includes it.
    """

    aggregate: Aggregate = "max"
    exclude_self: bool = True

    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        return (
            AttentionStat.diagonal(self.aggregate),
            AttentionStat.column_sum(self.aggregate, exclude_self=self.exclude_self),
        )

    def __call__(self, state: TokenState, attention: AttentionStats) -> Float[Tensor, "b n"]:
        difficulty, broadcasting = self.requires
        return attention[difficulty] * attention[broadcasting]
