"""No graph."""

from jaxtyping import Float
from torch import Tensor

from tokenred.graphs.base import GraphBuilder, graph_builders


@graph_builders.register("none")
class NoGraph(GraphBuilder):
    """No edges: propagation moves nothing, and nothing is computed."""

    def __call__(self, x0: Float[Tensor, "b N0 c"], grid: tuple[int, int]) -> None:
        return None
