"""DPC-KNN's clusters."""

from typing import Annotated, Literal, cast

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor, nn

from tokenred.attention import AttentionStats
from tokenred.core.info import ModelInfo
from tokenred.core.part import Part, Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32, full_precision, product, through
from tokenred.core.values import Blocks
from tokenred.strategies.base import Selector, selectors
from tokenred.strategies.schedule import layers_of


@selectors.register("DensityPeaks")
class DensityPeaks(Selector):
    """Choose dense centres far from denser tokens (DPC-KNN; Haurum et al., ICCVW 2023).

    With ``D_ij = ‖x_i − x_j‖/√c``, the density of a token is ``ρ = exp(−mean D²)`` over its
    nearest neighbours, itself included, and δ its distance to the nearest token of higher density
    (for the densest, the largest distance). The tokens with the largest ρδ are centres; each other
    token joins the nearest.

    Args:
        neighbours: k.
        equal_weights: whether all tokens have equal weight in the mean of a cluster; otherwise
            ``exp`` of a learned linear map of their features.
        layers: blocks with their own map, ascending; None for the quarters of the depth.

    Shapes:
        returns: ``keep (b, n−P)`` centres by descending ρδ; ``drop (b, P)`` ascending;
            ``partner (b, P)``.
    """

    traits = Traits(equivariant=False)
    version = 2

    neighbours: Annotated[int, Ge(2)] = 5
    equal_weights: bool = False
    layers: Blocks | Literal["all"] | None = None

    def build(self, info: ModelInfo) -> Part | nn.Module:
        if self.equal_weights:
            return self
        count = len(layers_of(self, self.layers, info.depth))
        return nn.ModuleList(
            nn.ModuleDict({"score": nn.Linear(info.width, 1)}) for _ in range(count)
        )

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float(tokens**2 * info.width)

    def learned_macs(self, info: ModelInfo, counts: tuple[int, ...]) -> float:
        if self.equal_weights:
            return 0.0
        alive = (info.num_patches - sum(counts[:layer]) for layer in range(len(counts)))
        return float(sum(n * info.width for n, count in zip(alive, counts, strict=True) if count))

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        distance = distances(state.image.detach())
        kept = distance.shape[1] - count
        order = (-self._importance(distance)).sort(dim=1, stable=True).indices
        centres, others = order[:, :kept], order[:, kept:].sort(dim=1).values
        image = torch.arange(order.shape[0], device=order.device)[:, None, None]
        nearest = distance[image, others[:, :, None], centres[:, None, :]].argmin(dim=2)
        return Selection(
            keep=centres,
            drop=others,
            partner=centres.gather(1, nearest),
            weight=self._weight(state),
        )

    def _importance(self, distance: Float[Tensor, "b n n"]) -> Float[Tensor, "b n"]:
        """``log ρδ``: where tokens lie far apart, all ρ would round to 0."""
        k = min(self.neighbours, distance.shape[1])
        near = distance.topk(k, dim=-1, largest=False).values
        density = -near.square().mean(dim=-1)
        denser = density[:, None, :] > density[:, :, None]
        most = distance.amax(dim=(1, 2), keepdim=True)
        return density + torch.where(denser, distance, most).amin(dim=-1).log()

    def _weight(self, state: TokenState) -> Float[Tensor, "b n"]:
        x = state.image.to(at_least_fp32(state.x.dtype))
        if self.network is None:
            return torch.ones_like(x[..., 0])
        stages = layers_of(self, self.layers, state.depth)
        stage = max(0, sum(start <= state.layer for start in stages) - 1)
        linear = cast(nn.Linear, self.network.get_submodule(f"{stage}.score"))
        with full_precision(x.device):
            weight = through([linear], x.to(linear.weight.dtype))
        return weight[..., 0].to(x.dtype).exp()


def distances(x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n n"]:
    """Euclidean distances, divided by √c; exactly 0 on the diagonal."""
    x = x.to(at_least_fp32(x.dtype)) / x.shape[-1] ** 0.5
    x = x - x.mean(dim=1, keepdim=True)  # closer to 0, for precision
    square = x.square().sum(dim=-1)
    apart = square[:, :, None] + square[:, None, :] - 2 * product(x, x.transpose(-2, -1))
    eye = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    return apart.clamp_min(0).masked_fill(eye, 0).sqrt()
