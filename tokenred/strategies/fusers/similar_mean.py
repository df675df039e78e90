"""DiffRate's merging."""

from __future__ import annotations

from typing import ClassVar

from tokenred.attention import AttentionStats
from tokenred.core.capture import replace
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import gather_tokens, product, unit_vectors
from tokenred.graphs.graph import Graph
from tokenred.strategies.base import fusers
from tokenred.strategies.fusers.mean import Mean
from tokenred.strategies.transport import Transport


@fusers.register("similar_mean")
class SimilarMean(Mean):
    """A plain mean with sizes added by similarity (DiffRate, Chen et al., ICCV 2023).

    The size of a kept token becomes ``s + Σ s_i·max(0, cos(x_i, x))`` over the tokens that it
    receives. The authors' program does not bound the cosine, and fails if a size falls below 0.

    Shapes:
        returns: ``n − P`` image tokens.
    """

    traits: ClassVar[Traits] = Traits()

    uses_size = True

    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        plain = super().transport(state, selection, graph, attention)
        if plain.size_move is None:
            return plain
        unit = unit_vectors(state.image.detach())
        kept, gone = (gather_tokens(unit, at) for at in (selection.keep, selection.drop))
        cosine = product(kept, gone.transpose(-2, -1)).clamp_min(0)
        return replace(plain, size_move=plain.size_move * cosine, size=None)
