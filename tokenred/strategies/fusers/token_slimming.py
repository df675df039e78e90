"""SiT's token slimming."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tokenred.core.tensors import through
from tokenred.strategies.base import fusers
from tokenred.strategies.fusers.soft import SoftFuser


@fusers.register("token_slimming")
class TokenSlimming(SoftFuser):
    """A small network assigns every token to new ones (SiT, Zong et al., ECCV 2022).

    A softmax over the tokens of ``scale · Linear(GELU(Linear(LN x)))``, as in Haurum et al. (ICCVW
    2023).
    """

    version = 2

    def stage(self, width: int, clusters: int) -> nn.Module:
        return _Assignment(width, clusters)


class _Assignment(nn.Module):
    def __init__(self, width: int, clusters: int) -> None:
        super().__init__()
        half = max(1, width // 2)
        self.weight = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, half), nn.GELU(), nn.Linear(half, clusters)
        )
        self.scale = nn.Parameter(torch.ones(1, 1, 1))

    def forward(
        self, x: Float[Tensor, "b n c"], clusters: int
    ) -> tuple[Float[Tensor, "b K n"], Float[Tensor, "b n c"]]:
        logits = through(self.weight, x.to(self.scale.dtype))[..., :clusters].to(x.dtype)
        return (self.scale * logits).softmax(dim=1).transpose(1, 2), x
