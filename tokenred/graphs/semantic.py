"""The semantic graph."""

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.core.capture import fixed, is_eager
from tokenred.core.errors import ConfigError
from tokenred.core.info import ModelInfo
from tokenred.core.part import Part, Traits
from tokenred.core.tensors import at_least_fp32, multiply, product, unit_vectors
from tokenred.core.values import Size
from tokenred.graphs.base import GraphBuilder, graph_builders
from tokenred.graphs.graph import Graph

# Similarities held at a time: as many as fit in a CPU's cache; on a GPU several times that, still
# far less than the MLP of a batch needs.
_TILE, _BLOCK = 1 << 19, 1 << 24


@graph_builders.register("semantic")
class Semantic(GraphBuilder):
    """Each token and the M tokens most cosine-similar to it (GTP-ViT, Eq. 6-7).

    Directed: row i chooses. Exactly M per row, never itself; ties go to the lower position.

    Args:
        M: semantic neighbours, 1 ≤ M < N0.
        reference: use M + 1 on models without a CLS token, as in the authors' code.

    Shapes:
        returns: a graph of batch b with K = M.
    """

    traits: ClassVar[Traits] = Traits(equivariant=True)

    M: Size = 8
    reference: bool = False

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

    def __call__(self, x0: Float[Tensor, "b N0 c"], grid: tuple[int, int]) -> Graph:
        self.check_tokens(x0.shape[1])
        return self.joined(most_similar(x0, self.M), grid, at_least_fp32(x0.dtype))

    def joined(
        self, near: Int[Tensor, "b N0 M"], grid: tuple[int, int], dtype: torch.dtype
    ) -> Graph:
        """The graph, from the most similar tokens of each token."""
        edges = torch.ones_like(near, dtype=torch.bool)
        return Graph.from_neighbours(near, edges, grid, dtype=dtype)


def most_similar(x: Float[Tensor, "b n c"], m: int) -> Int[Tensor, "b n m"]:
    """The m most cosine-similar other tokens of each token; ties go to the lower position.

    Compared in fp32 or better. A zero vector has similarity 0 to all others. Similarities are held
    one block at a time, so that thousands of tokens need no ``n²`` floats per image.
    """
    unit = unit_vectors(x.detach())
    b, n = unit.shape[0], fixed(unit.shape[1])
    if x.device.type == "cpu" and is_eager():
        return _in_tiles(unit, m)
    # Blocks of rows over all images; their number depends only on n, since the batch may be
    # dynamic.
    rows = max(1, _BLOCK // n // (max(1, b) if is_eager() else 1))
    choose = _first_by_key if x.device.type == "cuda" and unit.dtype == torch.float32 else _first
    place = torch.arange(n, device=x.device)
    blocks = []
    for start in range(0, n, rows):
        similarity = product(unit[:, start : start + rows], unit.transpose(-2, -1))
        itself = place[start : start + rows, None] == place
        blocks.append(choose(similarity.masked_fill_(itself, -torch.inf), m))
        del similarity
    return torch.cat(blocks, dim=1) if len(blocks) > 1 else blocks[0]


def _in_tiles(unit: Float[Tensor, "b n c"], m: int) -> Int[Tensor, "b n m"]:
    """The same, with tiles of images and rows in one buffer that stays in cache."""
    b, n, _ = unit.shape
    images = max(1, min(b, _TILE // n**2))
    rows = min(n, max(1, _TILE // n))
    near = torch.empty(b, n, m, dtype=torch.long)
    buffer = unit.new_empty(images, rows, n)
    for image in range(0, b, images):
        some = unit[image : image + images]
        for row in range(0, n, rows):
            at = slice(row, min(row + rows, n))
            tile = buffer[: some.shape[0], : at.stop - row]
            multiply(some[:, at], some.transpose(1, 2), tile)
            tile[..., at].diagonal(dim1=1, dim2=2).fill_(-torch.inf)
            # Takes a quarter of the time of sorting, with the same result unless the last place
            # is tied.
            best = tile.topk(m + 1, dim=-1)
            tied = bool((best.values[..., m - 1] == best.values[..., m]).any())
            near[image : image + images, at] = _first(tile, m) if tied else best.indices[..., :m]
    return near


def _first(similarity: Float[Tensor, "b k n"], m: int) -> Int[Tensor, "b k m"]:
    return similarity.sort(dim=-1, descending=True, stable=True).indices[..., :m]


def _first_by_key(similarity: Float[Tensor, "b k n"], m: int) -> Int[Tensor, "b k m"]:
    """`_first` by selection: (similarity, position) as one integer, so that there are no ties."""
    bits = (similarity + 0.0).view(torch.int32)  # + 0.0 makes −0 equal to 0
    bits ^= (bits >> 31) & 0x7FFFFFFF  # reverse the order of negative numbers
    n = similarity.shape[-1]
    key = bits.long()
    key <<= 32
    key += torch.arange(n - 1, -1, -1, device=similarity.device)
    return n - 1 - key.topk(m, dim=-1).values.remainder(1 << 32)
