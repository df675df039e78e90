"""PatchMerger."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tokenred.core.tensors import product
from tokenred.strategies.base import fusers
from tokenred.strategies.fusers.soft import SoftFuser


@fusers.register("patch_merger")
class PatchMerger(SoftFuser):
    """Learned queries attend to the normalised tokens (PatchMerger, Renggli et al., 2022).

    ``softmax_j(q·yᵀ)·y`` with ``y = LN(x)``, as in Haurum et al. (ICCVW 2023).

    Args:
        scaled: divide the logits by √c.
    """

    scaled: bool = False

    def stage(self, width: int, clusters: int) -> nn.Module:
        return _Queries(width, clusters, width**-0.5 if self.scaled else 1.0)


class _Queries(nn.Module):
    def __init__(self, width: int, clusters: int, scale: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(clusters, width))
        self.norm = nn.LayerNorm(width)
        self.scale = scale

    def forward(
        self, x: Float[Tensor, "b n c"], clusters: int
    ) -> tuple[Float[Tensor, "b K n"], Float[Tensor, "b n c"]]:
        y = self.norm(x.to(self.queries.dtype)).to(x.dtype)
        queries = self.queries[None, :clusters].expand(x.shape[0], -1, -1)
        return (product(queries, y.transpose(-2, -1)) * self.scale).softmax(dim=-1), y
