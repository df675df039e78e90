"""Sinkhorn clusters."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Le
from jaxtyping import Float
from torch import Tensor, nn

from tokenred.core.tensors import product, unit_vectors
from tokenred.strategies.base import fusers
from tokenred.strategies.fusers.soft import SoftFuser

Temperature = Annotated[float, Ge(1e-3), Le(1e3)]
Iterations = Annotated[int, Ge(1), Le(1000)]


@fusers.register("sinkhorn")
class Sinkhorn(SoftFuser):
    """Balanced soft clusters around learned centres (Sinkhorn of Haurum et al., ICCVW 2023).

    ``Z = v̂x̂ᵀ/ε`` with unit centres and unit tokens, made balanced by Sinkhorn's iterations in the
    log domain. Unit tokens are mixed, so their norms are lost.

    Args:
        epsilon: ε.
        iterations: number of balancing steps.
    """

    epsilon: Temperature = 1.0
    iterations: Iterations = 3

    def stage(self, width: int, clusters: int) -> nn.Module:
        return _Centres(width, clusters, self.epsilon, self.iterations)


class _Centres(nn.Module):
    def __init__(self, width: int, clusters: int, epsilon: float, iterations: int) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.randn(clusters, width))
        self.epsilon, self.iterations = epsilon, iterations

    def forward(
        self, x: Float[Tensor, "b n c"], clusters: int
    ) -> tuple[Float[Tensor, "b K n"], Float[Tensor, "b n c"]]:
        unit = unit_vectors(x)
        centres = unit_vectors(self.v[None, :clusters].to(unit.dtype))
        z = product(centres.expand(x.shape[0], -1, -1), unit.transpose(-2, -1)) / self.epsilon
        k, n = z.shape[1:]
        m = -math.log(k + n)
        rows, columns = z.new_zeros(x.shape[0], k, 1), z.new_zeros(x.shape[0], 1, n)
        for _ in range(self.iterations):
            rows = m - (z + columns).logsumexp(dim=2, keepdim=True)
            columns = m - (z + rows).logsumexp(dim=1, keepdim=True)
        return (z + rows + columns - m).exp(), unit
