"""The mixed graph."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.core.info import ModelInfo
from tokenred.core.part import Part, Traits, check_count
from tokenred.core.tensors import at_least_fp32
from tokenred.graphs.base import GraphBuilder, graph_builders
from tokenred.graphs.graph import Graph
from tokenred.graphs.semantic import Semantic, check_neighbours, most_similar
from tokenred.graphs.spatial import grid_neighbours

__all__ = ["Mixed"]


@graph_builders.register("mixed")
class Mixed(GraphBuilder):
    """The union of the spatial and the semantic graph (GTP-ViT, Eq. 8); GTP's default.

    Args:
        M: semantic neighbours, 1 ≤ M < N0.
        reference: as for `Semantic`.

    Shapes:
        x0: ``(b, N0, c)``.
        returns: a directed graph of batch b with K = 8 + M, an edge in both counted once.
    """

    traits: ClassVar[Traits] = Traits(equivariant=False, needs_grid=True)

    M: int = 8
    reference: bool = False

    def __post_init__(self) -> None:
        check_count(self, "M", self.M, low=1)

    def check(self, info: ModelInfo) -> None:
        super().check(info)
        check_neighbours(self, self.M, info.num_patches)

    def build(self, info: ModelInfo) -> Part:
        extra = int(self.reference and info.cls_index is None)
        return Mixed(min(self.M + extra, info.num_patches - 1))

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return Semantic(self.M).macs(info, tokens, removed)

    def __call__(self, x0: Float[Tensor, "b N0 c"], grid: tuple[int, int]) -> Graph:
        check_neighbours(self, self.M, x0.shape[1])
        semantic = most_similar(x0, self.M)
        b = x0.shape[0]
        spatial, inside = grid_neighbours(grid, x0.device)
        spatial, inside = spatial.expand(b, -1, -1), inside.expand(b, -1, -1)
        # A semantic choice that is a grid neighbour already is the same edge.
        known = ((semantic[..., None] == spatial[..., None, :]) & inside[..., None, :]).any(dim=-1)
        dtype = at_least_fp32(x0.dtype)
        return Graph.from_neighbours(
            torch.cat((spatial, semantic), dim=-1),
            torch.cat((inside, ~known), dim=-1),
            grid,
            dtype=dtype,
        )
