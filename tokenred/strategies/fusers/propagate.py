"""GTP's propagation."""

from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.info import ModelInfo
from tokenred.core.state import Selection, TokenState
from tokenred.core.values import Magnitude, Magnitudes
from tokenred.graphs.graph import Graph
from tokenred.strategies.base import Fuser, fusers
from tokenred.strategies.transport import Transport


@fusers.register("propagate")
class Propagate(Fuser):
    """Removed tokens pass their features to kept neighbours in the graph (GTP-ViT, Eq. 10, 12).

    ``X^s = X^k + α Â^p X^p``, and the same for the sizes. As in the paper, a token without a kept
    neighbour is lost, and the sum of the sizes is not conserved.

    Args:
        alpha: α ≥ 0, one number, or one per block.
    """

    alpha: Magnitude | Magnitudes = 0.1

    per_block = ("alpha",)
    uses_graph = True

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float((tokens - removed) * removed * info.width)

    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        weights: Float[Tensor, "b k P"] | None = None
        kept = None
        alpha = self.alpha[state.layer] if isinstance(self.alpha, tuple) else self.alpha
        if graph is not None and alpha > 0:
            kept = state.index.gather(1, selection.keep)
            gone = state.index.gather(1, selection.drop)
            weights = alpha * graph.weights_between(kept, gone)
        return Transport(selection.keep, selection.drop, move=weights, index=kept)
