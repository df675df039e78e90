"""The semantic graph."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.core.errors import ConfigError
from tokenred.core.info import ModelInfo
from tokenred.core.part import Part, Traits, check_count
from tokenred.core.tensors import at_least_fp32, unit_vectors
from tokenred.graphs.base import GraphBuilder, graph_builders
from tokenred.graphs.graph import Graph

__all__ = ["Semantic", "SemanticNeighbours", "most_similar"]


class SemanticNeighbours(GraphBuilder):
    """What builders that choose M semantic neighbours have in common.

    Args:
        M: semantic neighbours, 1 ≤ M < N0.
        reference: M + 1 of them on models without a CLS token, as in the authors' program.
    """

    M: int = 8
    reference: bool = False

    def __post_init__(self) -> None:
        check_count(self, "M", self.M, low=1)

    def check(self, info: ModelInfo) -> None:
        super().check(info)
        self.check_tokens(info.num_patches)

    def check_tokens(self, tokens: int) -> None:
        """Refuse more neighbours than there are other tokens."""
        if tokens <= self.M:
            raise ConfigError(
                f"{type(self).__name__}: M must be below the number of image tokens, got "
                f"M={self.M} for {tokens} tokens. Use M between 1 and {tokens - 1}."
            )

    def build(self, info: ModelInfo) -> Part:
        extra = int(self.reference and info.cls_index is None)
        return self.replace(M=min(self.M + extra, info.num_patches - 1), reference=False)

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float(tokens * tokens * info.width)


@graph_builders.register("semantic")
class Semantic(SemanticNeighbours):
    """Each token and the M tokens most cosine-similar to it (GTP-ViT, Eq. 6-7).

    Directed: row i chooses. Exactly M a row, never itself; ties go to the lower position.

    Args:
        M: semantic neighbours, 1 ≤ M < N0.
        reference: M + 1 of them on models without a CLS token, as in the authors' program.

    Shapes:
        x0: ``(b, N0, c)``.
        returns: a graph of batch b with K = M.
    """

    traits: ClassVar[Traits] = Traits(equivariant=True)

    def __call__(self, x0: Float[Tensor, "b N0 c"], grid: tuple[int, int]) -> Graph:
        self.check_tokens(x0.shape[1])
        near = most_similar(x0, self.M)
        edges = torch.ones_like(near, dtype=torch.bool)
        dtype = at_least_fp32(x0.dtype)
        return Graph.from_neighbours(near, edges, grid, dtype=dtype)


def most_similar(x: Float[Tensor, "b n c"], m: int) -> Int[Tensor, "b n m"]:
    """The m most cosine-similar other tokens of each, ties to the lower place.

    Compared in fp32 or better. A zero vector is equally dissimilar (0) to all.
    """
    unit = unit_vectors(x.detach())
    similarity = unit @ unit.transpose(-2, -1)
    itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    similarity = similarity.masked_fill(itself, -torch.inf)
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        # A quarter of the time of sorting, and the same where nothing ties at the last place.
        best = similarity.topk(m, dim=-1)
        chosen = similarity >= best.values[..., -1:]
        if bool((chosen.sum(dim=-1) == m).all()):
            return best.indices
    return similarity.sort(dim=-1, descending=True, stable=True).indices[..., :m]
