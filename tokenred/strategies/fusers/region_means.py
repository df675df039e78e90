"""The fusion of frequency-aware reduction."""

from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import MinLen
from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.capture import replace
from tokenred.core.errors import ConfigError
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32, gather_tokens, product
from tokenred.core.values import Blocks, Size
from tokenred.graphs.graph import Graph
from tokenred.strategies.base import Fuser, fusers
from tokenred.strategies.schedule import check_each, layers_of

Windows = Annotated[tuple[Size, ...], MinLen(1)]


@fusers.register("region_means")
class RegionMeans(Fuser):
    """Replace the removed tokens of each grid region by their mean (Lee et al., NeurIPS 2025).

    The grid is cut into w × w regions, each of which gets one token with index −1. Earlier means
    are included in the region that contains theirs, weighted by the patches they represent. A
    region without removed tokens gets the mean of its kept tokens, with weight 0.

    Args:
        windows: w of each of `layers`; each must divide the one before. None for 2, then 1.
        layers: blocks, ascending; None for the quarters of the depth.

    Shapes:
        returns: ``n − P + w²`` image tokens, the means last, row by row.
        memory: ``region_weight (b, w²)``, the number of patches that each mean represents.
    """

    traits = Traits(equivariant=False, needs_grid=True)

    windows: Windows | None = None
    layers: Blocks | None = None

    def __post_init__(self) -> None:
        for before, after in pairwise(self.windows or ()):
            if before % after:
                raise ConfigError(
                    f"RegionMeans: each of windows must divide the one before, got {self.windows}."
                )

    def check(self, info: ModelInfo) -> None:
        super().check(info)
        check_each(self, "windows", layers_of(self, self.layers, info.depth))

    def window(self, layer: int, depth: int) -> int:
        """The w of the last reduction up to a block."""
        stages = sum(start <= layer for start in layers_of(self, self.layers, depth))
        windows = self.windows or (2, 1)
        return windows[min(max(0, stages - 1), len(windows) - 1)]

    def extra_in(self, layer: int, depth: int) -> int:
        return self.window(layer, depth) ** 2

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float(max(self.windows or (2,)) ** 2 * tokens * info.width)

    def __call__(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> TokenState:
        cells = self.window(state.layer, state.depth)
        image = state.image.to(at_least_fp32(state.x.dtype))
        means = state.memory.get("region_weight")
        weight = torch.ones_like(image[..., 0])
        if means is not None:
            weight = torch.cat((weight[:, means.shape[1] :], means.to(weight.dtype)), dim=1)
        inside = self._regions(state, cells, means)
        goes = torch.zeros_like(weight).scatter(1, selection.drop, 1.0)
        weights = inside * (weight * goes)[:, None]
        total = weights.sum(dim=-1)
        stays = inside * (1 - goes)[:, None]
        empty = total == 0
        shares = torch.where(empty[..., None], stays, weights)
        shares = shares / shares.sum(dim=-1, keepdim=True).clamp_min(1e-12)
        new = product(shares, image).to(state.x.dtype)
        index = state.index.gather(1, selection.keep)
        after = torch.cat((state.prefix, gather_tokens(state.image, selection.keep), new), dim=1)
        size = state.size
        if size is not None:
            front = size.gather(1, state.places(selection.keep))
            size = torch.cat((front, torch.where(empty, 1, total).to(size.dtype)), dim=1)
        return replace(
            state,
            x=after,
            index=torch.cat((index, index.new_full((index.shape[0], cells**2), -1)), dim=1),
            size=size,
            memory={**state.memory, "region_weight": total},
        )

    def _regions(
        self, state: TokenState, cells: int, means: Tensor | None
    ) -> Float[Tensor, "b w n"]:
        """One-hot: the region of each token."""
        height, width = state.grid
        row, column = state.index // width, state.index % width
        region = row * cells // height * cells + column * cells // width
        if means is not None:
            old = round(means.shape[1] ** 0.5)
            at = torch.arange(old * old, device=region.device)
            within = at // old * cells // old * cells + at % old * cells // old
            region = torch.cat((region[:, : -old * old], within.expand(region.shape[0], -1)), dim=1)
        which = torch.arange(cells * cells, device=region.device)[:, None]
        return (region[:, None] == which).to(at_least_fp32(state.x.dtype))
