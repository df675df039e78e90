"""The spatial graph."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenred.core.part import Traits
from tokenred.core.tensors import at_least_fp32
from tokenred.graphs.base import GraphBuilder, graph_builders
from tokenred.graphs.graph import Graph


@graph_builders.register("spatial")
class Spatial(GraphBuilder):
    """Each patch and its 8 neighbours on the grid (GTP-ViT, Eq. 5).

    Undirected, no self-loops, shared by all images.

    Shapes:
        x0: ``(b, N0, c)``, read for its device only.
        returns: a graph of batch 1 with K = 8.
    """

    traits = Traits(equivariant=False, needs_grid=True)

    def __call__(self, x0: Float[Tensor, "b N0 c"], grid: tuple[int, int]) -> Graph:
        neighbours, edges = grid_neighbours(grid, x0.device)
        dtype = at_least_fp32(x0.dtype)
        return Graph.from_neighbours(neighbours, edges, grid, directed=False, dtype=dtype)


def grid_neighbours(
    grid: tuple[int, int], device: torch.device | None = None
) -> tuple[Int[Tensor, "1 N0 8"], Bool[Tensor, "1 N0 8"]]:
    """The 8 neighbours of each position, and which of them are on the grid.

    An entry off the grid contains the position itself and no edge.
    """
    height, width = grid
    at = torch.arange(height * width, device=device)
    # The same positions in a frame of −1, moved in eight directions.
    framed = F.pad(at.view(grid), (1, 1, 1, 1), value=-1)
    moved = [framed[i // 3 :, i % 3 :][:height, :width] for i in range(9) if i != 4]
    near = torch.stack(moved, dim=-1).view(-1, 8)
    inside = near >= 0
    return torch.where(inside, near, at[:, None])[None], inside[None]
