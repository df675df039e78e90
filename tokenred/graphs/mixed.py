"""The mixed graph."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.core.part import Traits
from tokenred.core.tensors import at_least_fp32
from tokenred.graphs.base import graph_builders
from tokenred.graphs.graph import Graph
from tokenred.graphs.semantic import Semantic, most_similar
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

    traits: ClassVar[Traits] = Traits(equivariant=False, needs_grid=True)

    def __call__(self, x0: Float[Tensor, "b N0 c"], grid: tuple[int, int]) -> Graph:
        self.check_tokens(x0.shape[1])
        semantic = most_similar(x0, self.M)
        b = x0.shape[0]
        spatial, inside = grid_neighbours(grid, x0.device)
        spatial, inside = spatial.expand(b, -1, -1), inside.expand(b, -1, -1)
        # A semantic neighbour that is already a grid neighbour is the same edge.
        known = ((semantic[..., None] == spatial[..., None, :]) & inside[..., None, :]).any(dim=-1)
        neighbours = torch.cat((spatial, semantic), dim=-1)
        edges = torch.cat((inside, ~known), dim=-1)
        return Graph.from_neighbours(neighbours, edges, grid, dtype=at_least_fp32(x0.dtype))
