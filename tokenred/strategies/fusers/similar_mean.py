"""DiffRate's merging."""

from tokenred.attention import AttentionStats
from tokenred.core.capture import replace
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import cosines
from tokenred.graphs.graph import Graph
from tokenred.strategies.base import fusers
from tokenred.strategies.fusers.mean import Mean
from tokenred.strategies.transport import Transport


@fusers.register("similar_mean")
class SimilarMean(Mean):
    """A plain mean with sizes added by similarity (DiffRate, Chen et al., ICCV 2023).

    The size of a kept token becomes ``s + Σ s_i·max(0, cos(x_i, x))`` over the tokens that it
    receives. The authors' code does not bound the cosine, and fails if a size falls below 0.
    """

    traits = Traits()

    uses_size = True

    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        plain = super().transport(state, selection, graph, attention)
        assert plain.size_move is not None
        cosine = cosines(state.image, selection.keep, selection.drop).clamp_min(0)
        return replace(plain, size_move=plain.size_move * cosine, size=None)
