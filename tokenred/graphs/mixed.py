"""The mixed graph."""

import torch
from jaxtyping import Int
from torch import Tensor

from tokenred.core.part import Traits
from tokenred.graphs.base import graph_builders
from tokenred.graphs.graph import Graph
from tokenred.graphs.semantic import Semantic
from tokenred.graphs.spatial import grid_neighbours


@graph_builders.register("mixed")
class Mixed(Semantic):
    """The union of the spatial and the semantic graph (GTP-ViT, Eq. 8); GTP's default.

    Args:
        M: semantic neighbours, 1 ≤ M < N0.
        reference: as for `Semantic`.

    Shapes:
        returns: a directed graph of batch b with K = 8 + M; edges in both graphs count once.
    """

    traits = Traits(equivariant=False, needs_grid=True)

    def joined(
        self, near: Int[Tensor, "b N0 M"], grid: tuple[int, int], dtype: torch.dtype
    ) -> Graph:
        b = near.shape[0]
        spatial, inside = grid_neighbours(grid, near.device)
        spatial, inside = spatial.expand(b, -1, -1), inside.expand(b, -1, -1)
        # A semantic neighbour that is already a grid neighbour is the same edge.
        known = ((near[..., None] == spatial[..., None, :]) & inside[..., None, :]).any(dim=-1)
        neighbours = torch.cat((spatial, near), dim=-1)
        edges = torch.cat((inside, ~known), dim=-1)
        return Graph.from_neighbours(neighbours, edges, grid, dtype=dtype)
