"""The contract of a graph builder."""

from jaxtyping import Float
from torch import Tensor

from tokenred.core.errors import PartError
from tokenred.core.part import Part
from tokenred.core.registry import KINDS, Registry
from tokenred.graphs.graph import Graph


class GraphBuilder(Part):
    """Builds the token graph of a batch, once, from the embedded tokens.

    To write one: "Write a part", docs/extending.md; to test it: `tokenred.testing.check_graph`.

    Shapes:
        x0: ``(b, N0, c)`` image tokens as they enter the first block, no prefix.
        returns: a `Graph` over ``N0`` positions, or None for no graph.
    """

    def __call__(self, x0: Float[Tensor, "b N0 c"], grid: tuple[int, int]) -> Graph | None:
        """The graph of these tokens on this grid."""
        raise PartError(f"{type(self).__name__} has no __call__(self, x0, grid).")


graph_builders: Registry[GraphBuilder] = KINDS["graph"]
list_graphs, register_graph = graph_builders.names, graph_builders.register
