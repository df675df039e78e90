"""The spatial graph."""

from __future__ import annotations

from typing import ClassVar

import torch
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

    traits: ClassVar[Traits] = Traits(equivariant=False, needs_grid=True)

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
    at = torch.arange(height * width, device=device)[:, None]
    # Computed from numbers, so that nothing is copied to the device; the fifth of nine is itself.
    step = torch.arange(8, device=device)
    step = step + (step >= 4)
    row, column = at // width + step // 3 - 1, at % width + step % 3 - 1
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return torch.where(inside, row * width + column, at)[None], inside[None]
